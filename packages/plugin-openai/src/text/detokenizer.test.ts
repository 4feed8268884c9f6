import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Detokenizer } from './detokenizer.js';

/** Tokens are bytes of UTF-8, as in byte-level BPE at its smallest. */
const bytes = (ids: number[]) => new TextDecoder('utf-8', { ignoreBOM: true }).decode(new Uint8Array(ids));
const encode = (text: string) => [...new TextEncoder().encode(text)];
/** Tokens are words, and a text's first loses its space, as in SentencePiece. */
const words = (ids: number[]) =>
  ids
    .map((id) => `▁w${id}`)
    .join('')
    .replaceAll('▁', ' ')
    .replace(/^ /, '');

function run(decode: (ids: number[]) => string, prompt: number[], ids: Iterable<number>) {
  const detokenizer = new Detokenizer(decode, prompt);
  const out = Array.from(ids, (id) => detokenizer.push(id));
  return [...out, detokenizer.flush()];
}

describe('Detokenizer', () => {
  it('hands out whole characters', () => {
    const text = 'né 世界 👩‍👩‍👧';
    const out = run(bytes, [], new TextEncoder().encode(text));
    expect(out.join('')).toBe(text);
    expect(out).toContain('世');
    expect(out.join('|')).not.toContain('\uFFFD');
  });

  it('gives any text back, after any prompt', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), fc.string({ unit: 'binary' }), (prompt, text) => {
        fc.pre(bytes(encode(prompt)) === prompt && bytes(encode(text)) === text);
        expect(run(bytes, encode(prompt), encode(text)).join('')).toBe(text);
      }),
    );
  });

  it('ends with what is left of a character that never came', () => {
    expect(run(bytes, [], [104, 0xe4, 0xb8])).toEqual(['h', '', '', '\uFFFD']);
  });

  it('goes on after bytes that are no character', () => {
    expect(run(bytes, [], [0xff, 104, 105]).join('')).toBe('\uFFFDhi');
  });

  it('keeps the space of the first word after a prompt', () => {
    expect(run(words, [1, 2], [3, 4])).toEqual([' w3', ' w4', '']);
    expect(run(words, [], [3, 4])).toEqual(['w3', ' w4', '']);
  });

  it('says nothing for tokens without text', () => {
    const special = (ids: number[]) => bytes(ids.filter((id) => id < 256));
    expect(run(special, [300], [104, 300, 105])).toEqual(['h', '', 'i', '']);
  });
});

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Tokenizer } from '@huggingface/tokenizers';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { tinyModel } from '../test/tiny-model.js';
import { ThreadedTokenizer } from './tokenizer.js';

let plain: Tokenizer;
let threaded: ThreadedTokenizer;

beforeAll(() => {
  using tiny = tinyModel();
  const read = (name: string) => JSON.parse(readFileSync(join(tiny.folder, name), 'utf8')) as object;
  const files = [read('tokenizer.json'), read('tokenizer_config.json')] as const;
  plain = new Tokenizer(...files);
  threaded = new ThreadedTokenizer(...files);
});
afterAll(() => threaded.dispose());

describe('ThreadedTokenizer', () => {
  it('gives the same tokens for short texts and long', async () => {
    for (const text of ['', 'Grüße', 'Grüße <s>, '.repeat(1000)]) {
      for (const special of [true, false]) {
        const { ids } = plain.encode(text, { add_special_tokens: special });
        expect(await threaded.encode(text, { special })).toEqual(ids);
      }
    }
  });

  it('leaves the thread that calls free', async () => {
    await threaded.encode('x'.repeat(2000), { special: false });
    let ticks = 0;
    const clock = setInterval(() => ticks++, 2);
    await threaded.encode('x'.repeat(300_000), { special: false });
    clearInterval(clock);
    expect(ticks).toBeGreaterThan(3);
  });

  it('lets go of a text that nobody waits for, and not of the others', async () => {
    const leaving = new AbortController();
    const left = threaded.encode('x'.repeat(500_000), { special: false, signal: leaving.signal });
    const other = threaded.encode('y'.repeat(2000), { special: false });
    const gone = expect(left).rejects.toThrow('gone');
    leaving.abort(new Error('gone'));
    await gone;
    expect(await other).toHaveLength(2000);
    const late = threaded.encode('x'.repeat(2000), { special: false, signal: leaving.signal });
    await expect(late).rejects.toThrow('gone');
  });
});

import { describe, expect, it } from 'vitest';
import type { Tokenizer } from '../evaluate/tokenizer.js';
import { excerpts } from './excerpts.js';

/** One id a character. */
const tokenizer: Tokenizer = {
  encode: (text) => [...text].map((letter) => letter.codePointAt(0)!),
  decode: (ids) => String.fromCodePoint(...ids),
  bosId: undefined,
  eosId: undefined,
  size: 128,
};
const text = Array.from({ length: 50 }, (_, i) => `Paragraph ${i} begins. And goes on for a while.`).join(
  '\n\n',
);
const words = (ids: readonly number[]) => tokenizer.decode(ids);

describe('excerpts', () => {
  it('spreads them over a text, each from the start of a paragraph', () => {
    const [taken] = excerpts(tokenizer, [text], { tokens: 60, window: 20 });
    expect(taken!.map(words)).toEqual([
      'Paragraph 0 begins. ',
      'Paragraph 17 begins.',
      'Paragraph 34 begins.',
    ]);
  });

  it('takes equal parts of several texts, and all of one that is too short', () => {
    const [first, second] = excerpts(tokenizer, [text, 'Only this.'], { tokens: 80, window: 20 });
    expect(first!.flat()).toHaveLength(40);
    expect(second!.map(words)).toEqual(['Only this.']);
  });

  it('never takes a place twice', () => {
    const short = 'abcdefghij klmnopqrst uvwxyz';
    const [taken] = excerpts(tokenizer, [short], { tokens: 300, window: 12 });
    const joined = taken!.map(words).join('');
    expect(new Set(joined).size).toBe([...joined].filter((c) => c !== ' ').length + 1);
  });

  it('refuses a text that is too short for anything', () => {
    expect(() => excerpts(tokenizer, ['a'], { tokens: 10, window: 5 })).toThrow(
      expect.objectContaining({ code: 'TEXT_TOO_SHORT' }),
    );
  });
});

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { scoredTokens, windows } from './windows.js';

const upTo = (n: number) => Array.from({ length: n }, (_, i) => i);

describe('windows', () => {
  it('predicts n - 1 tokens of a text that fits one window', () => {
    expect(windows(upTo(5), { window: 8 })).toEqual([{ begin: 0, ids: upTo(5), scoreFrom: 1 }]);
  });

  it('scores in overlapping windows only what is new', () => {
    expect(windows(upTo(6), { window: 4, stride: 2 })).toEqual([
      { begin: 0, ids: [0, 1, 2, 3], scoreFrom: 1 },
      { begin: 2, ids: [2, 3, 4, 5], scoreFrom: 2 },
    ]);
  });

  it('leaves out a rest that predicts nothing', () => {
    expect(windows(upTo(5), { window: 4 })).toHaveLength(1);
  });

  it('predicts every token once, but those that no window can', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 2, max: 60 }),
        fc.integer({ min: 2, max: 20 }),
        fc.integer({ min: 1, max: 20 }),
        (length, window, someStride) => {
          const stride = Math.min(someStride, window);
          const list = windows(upTo(length), { window, stride });
          const scored = list.flatMap(({ ids, scoreFrom }) => ids.slice(scoreFrom));
          const missed = stride === window ? upTo(length).filter((i) => i % window === 0) : [0];
          expect(scored).toEqual(upTo(length).filter((i) => !missed.includes(i)));
          expect(scoredTokens(list)).toBe(scored.length);
          expect(list.every(({ ids }) => ids.length <= window)).toBe(true);
        },
      ),
    );
  });

  it('refuses what makes no sense', () => {
    for (const options of [{ window: 1 }, { window: 4, stride: 5 }, { stride: 0 }, { window: 2.5 }]) {
      expect(() => windows(upTo(9), options)).toThrow(expect.objectContaining({ code: 'WINDOW_INVALID' }));
    }
    expect(() => windows([1])).toThrow(expect.objectContaining({ code: 'TEXT_TOO_SHORT' }));
  });
});

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { padLeft, positions } from './padding.js';

describe('padLeft', () => {
  it('aligns the ends', () => {
    expect(padLeft([[7, 8, 9], [5]])).toEqual({
      ids: [
        [7, 8, 9],
        [0, 0, 5],
      ],
      mask: [
        [1, 1, 1],
        [0, 0, 1],
      ],
    });
  });

  it('keeps a given mask', () => {
    expect(padLeft([[0, 5]], [[0, 1]]).mask).toEqual([[0, 1]]);
  });

  it.each([
    ['no sequence', []],
    ['an empty sequence', [[1], []]],
    ['a negative id', [[-1]]],
    ['a fraction', [[0.5]]],
  ])('refuses %s', (_name, sequences: number[][]) => {
    expect(() => padLeft(sequences)).toThrow(expect.objectContaining({ code: 'TOKENS_INVALID' }));
  });

  it('refuses a mask of another shape', () => {
    expect(() => padLeft([[1, 2]], [[1]])).toThrow(expect.objectContaining({ code: 'TOKENS_INVALID' }));
  });

  it('counts positions from the first token of each row, whatever the padding', () => {
    fc.assert(
      fc.property(
        fc.array(fc.array(fc.nat(9), { minLength: 1, maxLength: 8 }), { minLength: 1, maxLength: 4 }),
        (rows) => {
          const { mask } = padLeft(rows);
          const all = positions(mask, mask[0]!.length);
          rows.forEach((row, i) => {
            expect(all[i]!.slice(-row.length)).toEqual(row.map((_, position) => position));
          });
        },
      ),
    );
  });

  it('gives the positions of the new tokens only', () => {
    expect(positions([[0, 0, 1, 1, 1]], 2)).toEqual([[1, 2]]);
    expect(positions([[0, 0, 1]], 3)).toEqual([[1, 1, 0]]);
  });
});

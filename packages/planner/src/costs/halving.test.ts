import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { halvingOf, roundEnds, survivors } from './halving.js';

const half = { share: 0.25, keep: 0.5, by: 'kl' } as const;

describe('successive halving', () => {
  it('doubles what is seen from round to round', () => {
    expect(roundEnds(16, half, 1)).toEqual([4, 8, 16]);
    expect(roundEnds(16, half, 6)).toEqual([6, 12, 16]);
    expect(roundEnds(3, half, 4)).toEqual([3]);
    expect(roundEnds(16, null, 1)).toEqual([16]);
    expect(roundEnds(16, { ...half, share: 1 }, 1)).toEqual([16]);
  });

  it('refuses shares that are none', () => {
    expect(halvingOf(false)).toBeNull();
    expect(halvingOf(undefined)).toEqual(half);
    for (const options of [{ share: 0 }, { keep: 1.5 }, { share: Number.NaN }]) {
      expect(() => halvingOf(options)).toThrow(expect.objectContaining({ code: 'COSTS_OPTIONS' }));
    }
  });

  it('keeps the best of each size, the first of equals', () => {
    const candidate = fc.record({ size: fc.constantFrom(2, 3, 4), score: fc.integer({ min: 0, max: 5 }) });
    fc.assert(
      fc.property(
        fc.array(candidate, { minLength: 1, maxLength: 30 }),
        fc.double({ min: 0.01, max: 1, noNaN: true }),
        (all, keep) => {
          const groups = all.map(({ size }) => ({
            layers: Array.from({ length: size }, (_, i) => i),
            bypass: 0,
          }));
          const kept = survivors(groups, [...all.keys()], (index) => all[index]!.score, keep);
          expect(kept).toEqual([...kept].sort((a, b) => a - b));
          for (const size of [2, 3, 4]) {
            const of = [...all.keys()].filter((index) => all[index]!.size === size);
            const stay = of.filter((index) => kept.includes(index));
            expect(stay.length).toBe(Math.ceil(of.length * keep));
            for (const index of of) {
              if (kept.includes(index)) continue;
              for (const other of stay) {
                const [a, b] = [all[other]!.score, all[index]!.score];
                expect(a < b || (a === b && other < index)).toBe(true);
              }
            }
          }
        },
      ),
    );
  });
});

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { best, klDivergence, logSumExp } from './distribution.js';

const row = fc.array(fc.float({ min: -30, max: 30, noNaN: true }), { minLength: 5, maxLength: 5 });

describe('distributions', () => {
  it('does not overflow', () => {
    expect(logSumExp(Float32Array.of(1000, 1000), 0, 2)).toBeCloseTo(1000 + Math.log(2), 10);
    expect(logSumExp(Float32Array.of(9, 9, 0, 0), 2, 2)).toBeCloseTo(Math.log(2), 12);
  });

  it('computes the divergence of the definition', () => {
    // P = (0.75, 0.25), Q = (0.5, 0.5), in logits with shifts that must not matter.
    const p = Float32Array.of(Math.log(3) + 2, 2);
    const q = Float32Array.of(-1, -1);
    expect(klDivergence(p, q, 0, 2)).toBeCloseTo(0.75 * Math.log(1.5) + 0.25 * Math.log(0.5), 6);
  });

  it('is 0 for equal rows, never below, and blind to shifts', () => {
    fc.assert(
      fc.property(row, row, fc.integer({ min: -8, max: 8 }), (a, b, shift) => {
        const p = Float32Array.from(a);
        const q = Float32Array.from(b);
        expect(klDivergence(p, p, 0, 5)).toBeLessThan(1e-12);
        const value = klDivergence(p, q, 0, 5);
        expect(value).toBeGreaterThanOrEqual(0);
        const shifted = klDivergence(
          p,
          Float32Array.from(b, (v) => Math.fround(v) + shift),
          0,
          5,
        );
        expect(Math.abs(shifted - value)).toBeLessThan(1e-4 * (1 + value));
      }),
    );
  });

  it('knows the best and its margin', () => {
    expect(best(Float32Array.of(7, 1, 5, 4), 1, 3)).toEqual({ index: 1, margin: 1 });
    expect(best(Float32Array.of(2, 2), 0, 2)).toEqual({ index: 0, margin: 0 });
  });
});

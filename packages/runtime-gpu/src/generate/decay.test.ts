import fc from 'fast-check';
import { expect, it } from 'vitest';
import { decay, REACH } from './decay.js';

it('decay is the exponential function to 13 digits', () => {
  fc.assert(
    fc.property(fc.double({ min: 0, max: REACH, maxExcluded: true, noNaN: true }), (distance) => {
      expect(Math.abs(decay(distance) / Math.exp(-distance) - 1)).toBeLessThan(1e-13);
    }),
    { numRuns: 2000 },
  );
  expect(decay(0)).toBe(1);
});

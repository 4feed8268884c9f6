import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { spread } from './spread.js';

describe('spread', () => {
  it('interpolates quartiles', () => {
    expect(spread([4, 1, 3, 2])).toEqual({ median: 2.5, min: 1, max: 4, q1: 1.75, q3: 3.25, count: 4 });
    expect(spread([7])).toEqual({ median: 7, min: 7, max: 7, q1: 7, q3: 7, count: 1 });
  });

  it('is in order, whatever the order of the values', () => {
    const value = fc.double({ min: -1e6, max: 1e6, noNaN: true });
    fc.assert(
      fc.property(fc.array(value, { minLength: 1 }), (values) => {
        const { min, q1, median, q3, max } = spread(values);
        const slack = 1e-6;
        expect(min).toBeLessThanOrEqual(q1 + slack);
        expect(q1).toBeLessThanOrEqual(median + slack);
        expect(median).toBeLessThanOrEqual(q3 + slack);
        expect(q3).toBeLessThanOrEqual(max + slack);
        expect(spread([...values].reverse())).toEqual(spread(values));
      }),
    );
  });
});

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Contributions, ffnInput, groupOutput } from './combine.js';

const WIDTH = 3;
/** Whole numbers, so that sums are exact in any order. */
const vector = fc
  .array(fc.integer({ min: -1000, max: 1000 }), { minLength: WIDTH, maxLength: WIDTH })
  .map((values) => Float64Array.from(values));
const group = fc.array(vector, { minLength: 1, maxLength: 6 });

function members(attention: readonly Float64Array[]): Contributions[] {
  return attention.map((a) => ({ attention: a, passedOn: true }));
}

function plus(...terms: readonly Float64Array[]): Float64Array {
  return Float64Array.from({ length: WIDTH }, (_, i) => terms.reduce((sum, term) => sum + term[i]!, 0));
}

describe('ffnInput', () => {
  it('without bypass is the layer by itself', () => {
    fc.assert(
      fc.property(vector, group, (x, a) => {
        for (const [j, own] of a.entries()) expect(ffnInput(x, members(a), j, 0)).toEqual(plus(x, own));
      }),
    );
  });

  it('of bypass d adds the d attention outputs before, those that there are', () => {
    fc.assert(
      fc.property(vector, group, fc.nat(8), (x, a, d) => {
        for (const j of a.keys()) {
          const reached = a.slice(Math.max(0, j - d), j + 1);
          expect(ffnInput(x, members(a), j, d)).toEqual(plus(x, ...reached));
        }
      }),
    );
  });

  it('of full bypass is the same for every layer', () => {
    fc.assert(
      fc.property(vector, group, (x, a) => {
        for (const j of a.keys()) expect(ffnInput(x, members(a), j, 'full')).toEqual(plus(x, ...a));
      }),
    );
  });

  it('of the last layer is the same for full bypass and the longest distance', () => {
    fc.assert(
      fc.property(vector, group, (x, a) => {
        const last = a.length - 1;
        expect(ffnInput(x, members(a), last, last)).toEqual(ffnInput(x, members(a), last, 'full'));
      }),
    );
  });

  it('passes over layers without attention and those whose output is not passed on', () => {
    const [x, a, b] = [Float64Array.of(1, 1, 1), Float64Array.of(10, 0, 0), Float64Array.of(0, 20, 0)];
    const parts: Contributions[] = [
      { attention: a, passedOn: false },
      { attention: undefined, passedOn: true },
      { attention: b, passedOn: true },
    ];
    expect([...ffnInput(x, parts, 1, 'full')]).toEqual([1, 21, 1]);
    expect([...ffnInput(x, parts, 2, 2)]).toEqual([1, 21, 1]);
    expect([...ffnInput(x, parts, 0, 0)]).toEqual([11, 1, 1]);
  });

  it('leaves x as it was', () => {
    const x = Float64Array.of(1, 2, 3);
    ffnInput(x, members([Float64Array.of(1, 1, 1)]), 0, 'full');
    expect([...x]).toEqual([1, 2, 3]);
  });
});

describe('groupOutput', () => {
  it('adds every contribution once, in whatever order', () => {
    fc.assert(
      fc.property(vector, group, (x, parts) => {
        expect(groupOutput(x, parts)).toEqual(plus(x, ...parts));
        expect(groupOutput(x, parts.toReversed())).toEqual(groupOutput(x, parts));
      }),
    );
  });
});

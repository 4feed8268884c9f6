import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type AffineMatrix, foldNorm, MatrixBuilder, meanGain, nearestGain } from './algebra.js';
import { layOut } from './wide-branch.js';

const number = fc.float({ min: -4, max: 4, noNaN: true });
const floats = (length: number) => fc.array(number, { minLength: length, maxLength: length });
const matrix = (inFeatures: number, outFeatures: number, biased: boolean): fc.Arbitrary<AffineMatrix> =>
  fc.record({
    inFeatures: fc.constant(inFeatures),
    outFeatures: fc.constant(outFeatures),
    weight: floats(inFeatures * outFeatures).map((values) => Float32Array.from(values)),
    bias: biased ? floats(outFeatures).map((values) => Float32Array.from(values)) : fc.constant(undefined),
  });

/** `input · W + b`, in float64. */
function apply({ inFeatures, outFeatures, weight, bias }: AffineMatrix, input: readonly number[]): number[] {
  return Array.from({ length: outFeatures }, (_, j) => {
    let sum = bias?.[j] ?? 0;
    for (let k = 0; k < inFeatures; k++)
      sum += (input[k] as number) * (weight[k * outFeatures + j] as number);
    return sum;
  });
}

function close(found: readonly number[], expected: readonly number[]): void {
  expect(found).toHaveLength(expected.length);
  for (const [i, value] of expected.entries()) {
    expect(Math.abs((found[i] as number) - value)).toBeLessThanOrEqual(1e-3 * Math.max(1, Math.abs(value)));
  }
}

describe('foldNorm', () => {
  it('gives on the shared norm what the map gave on its own', () => {
    const gain = fc.double({ min: 0.25, max: 4, noNaN: true });
    const vector = (of: fc.Arbitrary<number>) =>
      fc.array(of, { minLength: 3, maxLength: 3 }).map((values) => Float64Array.from(values));
    fc.assert(
      fc.property(
        matrix(3, 4, true),
        fc.boolean(),
        vector(gain),
        fc.option(vector(fc.double({ min: -2, max: 2, noNaN: true })), { nil: undefined }),
        fc.option(vector(gain), { nil: undefined }),
        floats(3),
        (map, biased, g, shift, shared, x) => {
          const given = biased ? map : { ...map, bias: undefined };
          const folded = foldNorm(given, { gain: g, shift }, shared);
          const own = x.map((value, k) => value * (g[k] as number) + (shift?.[k] ?? 0));
          const common = x.map((value, k) => value * (shared?.[k] ?? 1));
          close(apply(folded, common), apply(given, own));
          expect(folded.bias === undefined).toBe(!biased && shift === undefined);
        },
      ),
    );
  });

  it('leaves a map alone whose norm the shared one is', () => {
    const gain = Float64Array.of(0.3, -2, 7);
    const weight = Float32Array.from({ length: 6 }, (_, i) => Math.sin(i + 1));
    const map = { inFeatures: 3, outFeatures: 2, weight, bias: undefined };
    expect(foldNorm(map, { gain, shift: undefined }, gain).weight).toEqual(weight);
  });
});

describe('MatrixBuilder', () => {
  it('puts outputs side by side, segments of one kind together', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.integer({ min: 1, max: 3 }), fc.integer({ min: 1, max: 2 })), {
          minLength: 2,
          maxLength: 3,
        }),
        floats(3),
        fc.infiniteStream(number),
        (sizes, x, numbers) => {
          // q, k and v of each member.
          const widths = sizes.map(([q, kv]) => [q, kv, kv]);
          const draw = (length: number) =>
            Float32Array.from({ length }, () => numbers.next().value as number);
          const members = widths.map((list): AffineMatrix => {
            const outFeatures = list.reduce((a, b) => a + b, 0);
            return { inFeatures: 3, outFeatures, weight: draw(3 * outFeatures), bias: draw(outFeatures) };
          });
          const { width, runs } = layOut(widths);
          const builder = new MatrixBuilder(3, width, true);
          for (const [i, member] of members.entries()) builder.columns(member, runs[i]!);
          const results = members.map((member) => apply(member, x));
          const segment = (of: number) =>
            results.flatMap((result, i) => {
              const start = widths[i]!.slice(0, of).reduce((a, b) => a + b, 0);
              return result.slice(start, start + widths[i]![of]!);
            });
          close(apply(builder.build(), x), [0, 1, 2].flatMap(segment));
        },
      ),
    );
  });

  it('sums what members give when they are below each other, biases and all', () => {
    fc.assert(
      fc.property(matrix(2, 3, true), matrix(4, 3, false), floats(6), floats(3), (a, b, x, extra) => {
        const builder = new MatrixBuilder(6, 3, true);
        builder.rows(a, 0);
        builder.rows(b, 2);
        builder.addBias(Float64Array.from(extra));
        const [left, right] = [apply(a, x.slice(0, 2)), apply(b, x.slice(2))];
        close(
          apply(builder.build(), x),
          left.map((value, j) => value + (right[j] as number) + (extra[j] as number)),
        );
      }),
    );
  });
});

describe('gains for several norms', () => {
  it('takes the geometric mean, and 1 where there is none', () => {
    const gains = [Float64Array.of(1, -2, 3, 0), Float64Array.of(4, -8, -3, 5)];
    expect([...meanGain(gains, 4)]).toEqual([2, -4, 1, 1]);
    expect([...meanGain([Float64Array.of(4), undefined], 1)]).toEqual([2]);
  });

  it('keeps the one that the others are nearest to', () => {
    const gains = [Float64Array.of(1, 1), Float64Array.of(8, 2), Float64Array.of(3, 1)];
    expect(nearestGain(gains)).toBe(2);
  });

  it('keeps none that is 0 somewhere, or far smaller than another', () => {
    expect(nearestGain([Float64Array.of(0, 1), Float64Array.of(0, 2)])).toBeUndefined();
    expect(nearestGain([Float64Array.of(0, 1), Float64Array.of(1, 2)])).toBe(1);
    expect(nearestGain([Float64Array.of(1, 1000), Float64Array.of(1000, 1)])).toBeUndefined();
  });
});

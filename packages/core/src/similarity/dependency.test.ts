import fc from 'fast-check';
import { expect, it } from 'vitest';
import { BlockDependencyAccumulator, blockDependency } from './dependency.js';

const code = (value: string) => expect.objectContaining({ name: 'MetricError', code: value });

it('is the mean cosine distance over tokens', () => {
  const withBlock = Float32Array.of(1, 0, 1, 0, 1, 0, 3, 4);
  const without = Float32Array.of(2, 0, 0, 5, -1, 0, 4, 3);
  const got = blockDependency(withBlock, without, { hidden: 2 });
  expect(got.tokens).toBe(4);
  expect(got.distance).toBeCloseTo((0 + 1 + 2 + 1 - 24 / 25) / 4, 15);
});

it('is 0 for equal contributions and has a value for zero ones', () => {
  const x = Float32Array.of(0.1, 0.2, 0.3);
  expect(blockDependency(x, x, { hidden: 3 }).distance).toBe(0);
  const zero = new Float32Array(3);
  expect(blockDependency(zero, zero, { hidden: 3 }).distance).toBe(0);
  expect(blockDependency(zero, x, { hidden: 3 }).distance).toBe(1);
});

it('is symmetric, in [0, 2], and the same in pieces', () => {
  const floats = fc.array(fc.float({ noNaN: true, min: -100, max: 100 }), { minLength: 12, maxLength: 12 });
  fc.assert(
    fc.property(floats, floats, fc.integer({ min: 0, max: 4 }), (a, b, cut) => {
      const [x, y] = [Float32Array.from(a), Float32Array.from(b)];
      const whole = blockDependency(x, y, { hidden: 3 });
      expect(whole.distance).toBe(blockDependency(y, x, { hidden: 3 }).distance);
      expect(whole.distance).toBeGreaterThanOrEqual(0);
      expect(whole.distance).toBeLessThanOrEqual(2);
      const parts = new BlockDependencyAccumulator({ hidden: 3 })
        .add(x.subarray(0, cut * 3), y.subarray(0, cut * 3))
        .add(x.subarray(cut * 3), y.subarray(cut * 3));
      expect(parts.finish()).toEqual(whole);
    }),
  );
});

it('leaves masked tokens out and merges', () => {
  const x = Float32Array.of(1, 0, 1, 0);
  const y = Float32Array.of(0, 1, 1, 0);
  const first = new BlockDependencyAccumulator({ hidden: 2 }).add(x, y, { mask: [true, false] });
  expect(first.finish()).toEqual({ distance: 1, tokens: 1 });
  expect(first.merge(new BlockDependencyAccumulator({ hidden: 2 }).add(x, y)).finish()).toEqual({
    distance: 2 / 3,
    tokens: 3,
  });
});

it('refuses what it cannot compute from', () => {
  const x = Float32Array.of(1, 2);
  expect(() => blockDependency(x, Float32Array.of(1), { hidden: 1 })).toThrowError(code('ACTIVATION_SHAPE'));
  expect(() => blockDependency(x, Float32Array.of(1, Number.NaN), { hidden: 1 })).toThrowError(
    /without the earlier block .* token 1/,
  );
  expect(() => blockDependency(x, x, { hidden: 0 })).toThrowError(code('METRIC_OPTIONS'));
  expect(() => blockDependency(x, x, { hidden: 1, mask: [0, 0] })).toThrowError(code('NO_TOKENS'));
});

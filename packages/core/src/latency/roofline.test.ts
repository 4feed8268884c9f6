import { describe, expect, it } from 'vitest';
import type { Kernel } from './kernels.js';
import { kernelCost } from './roofline.js';
import { roundMachine } from './testing/instances.js';

const device = roundMachine(1, { kernelSeconds: 0.5, launchSeconds: 0.25 }).devices[0]!;
const product = (m: number, k: number, n: number): Kernel => ({
  name: 'product',
  kind: 'product',
  type: 'float16',
  flops: 2 * m * k * n,
  bytes: 2 * (k * n + m * (k + n)),
  product: { m, k, n, weightBits: 16 },
});

it('takes the longer of arithmetic and memory', () => {
  // 2e9 operations at 1e9 a second; 2e9 bytes at 1e9 a second.
  expect(kernelCost({ ...product(1, 1, 1), flops: 2e9, bytes: 1 }, device)).toEqual({
    launchSeconds: 0.25,
    fixedSeconds: 0.5,
    workSeconds: 2,
    bound: 'compute',
  });
  const memory = kernelCost({ ...product(1, 1, 1), flops: 1, bytes: 3e9 }, device);
  expect([memory.workSeconds, memory.bound]).toEqual([3, 'memory']);
});

it('takes the efficiency at the size', () => {
  const curved = {
    ...device,
    computeEfficiency: 0.5,
    memoryEfficiency: [
      { bytes: 100, share: 0.1 },
      { bytes: 10_000, share: 0.5 },
    ],
  };
  const of = (bytes: number) =>
    bytes / kernelCost({ ...product(1, 1, 1), flops: 0, bytes }, curved).workSeconds / 1e9;
  expect(of(10)).toBeCloseTo(0.1);
  expect(of(1000)).toBeCloseTo(0.3);
  expect(of(1e6)).toBeCloseTo(0.5);
  expect(kernelCost({ ...product(1, 1, 1), flops: 1e9, bytes: 1 }, curved).workSeconds).toBe(2);
});

describe('measured products', () => {
  const measured = {
    ...device,
    products: [
      { type: 'float16' as const, m: 1, k: 1000, n: 1000, weightBits: 16, seconds: 4 },
      { type: 'float16' as const, m: 64, k: 1000, n: 1000, weightBits: 16, seconds: 5 },
      { type: 'float32' as const, m: 1, k: 1000, n: 2000, weightBits: 32, seconds: 100 },
    ],
  };
  const of = (m: number, k: number, n: number) => {
    const { fixedSeconds, workSeconds } = kernelCost(product(m, k, n), measured);
    return fixedSeconds + workSeconds;
  };

  it('take what was measured', () => {
    expect(of(1, 1000, 1000)).toBeCloseTo(4, 10);
    expect(of(64, 1000, 1000)).toBeCloseTo(5, 10);
  });

  it('lie between measurements, near the nearest, whatever other types took', () => {
    const roofline = (m: number) => kernelCost(product(m, 1000, 1000), device);
    const ratio = (m: number) => of(m, 1000, 1000) / (0.5 + roofline(m).workSeconds);
    expect(ratio(2)).toBeLessThan(ratio(1));
    expect(ratio(32)).toBeGreaterThan(ratio(64));
    expect(Math.abs(ratio(2) - ratio(1))).toBeLessThan(Math.abs(ratio(2) - ratio(64)));
  });

  it('change nothing else', () => {
    const small: Kernel = { name: 'norm', kind: 'small', type: 'float16', flops: 0, bytes: 1000 };
    expect(kernelCost(small, measured)).toEqual(kernelCost(small, device));
  });
});

it('gives an attention that was measured its time, and others the ratio of those next to them', () => {
  const attention = (tokens: number, context: number, heads: number): Kernel => ({
    name: 'attention',
    kind: 'attention',
    type: 'float32',
    flops: 4 * (tokens * context + (tokens * (tokens + 1)) / 2) * heads * 64,
    bytes: 2 * heads * 64 * (context + tokens) * 4 + 2 * tokens * heads * 64 * 4,
    attention: { tokens, context, heads, kvHeads: heads, headDim: 64 },
  });
  const of = (kernel: Kernel, on: typeof device) => {
    const { fixedSeconds, workSeconds } = kernelCost(kernel, on);
    return fixedSeconds + workSeconds;
  };
  const sizes = { kvHeads: 4, headDim: 64, heads: 4 };
  const measured = {
    ...device,
    attention: [
      { type: 'float32' as const, tokens: 1, context: 100, ...sizes, seconds: 3 },
      { type: 'float32' as const, tokens: 1, context: 1000, ...sizes, seconds: 7 },
    ],
  };
  expect(of(attention(1, 100, 4), measured)).toBeCloseTo(3, 10);
  expect(of(attention(1, 1000, 4), measured)).toBeCloseTo(7, 10);
  const ratio = (context: number) =>
    of(attention(1, context, 4), measured) / of(attention(1, context, 4), device);
  const middle = ratio(300);
  expect(middle).toBeGreaterThan(Math.min(ratio(100), ratio(1000)));
  expect(middle).toBeLessThan(Math.max(ratio(100), ratio(1000)));
});

it('takes element-wise kernels from the line between those that were measured', () => {
  const small = (bytes: number): Kernel => ({ name: 'add', kind: 'small', type: 'float32', flops: 0, bytes });
  const measured = {
    ...device,
    elementwise: [
      { bytes: 100, seconds: 2 },
      { bytes: 300, seconds: 3 },
    ],
  };
  const of = (bytes: number) => kernelCost(small(bytes), measured).workSeconds;
  expect([0, 50, 100, 200, 300, 600].map(of)).toEqual([0, 1, 2, 2.5, 3, 6]);
  // Norms take their own, or that.
  const norm = { ...small(200), kind: 'norm' as const };
  expect(kernelCost(norm, measured).workSeconds).toBe(2.5);
  const own = { ...measured, norms: [{ bytes: 100, seconds: 7 }] };
  expect(kernelCost(norm, own).workSeconds).toBe(14);
  expect(kernelCost(small(200), own).workSeconds).toBe(2.5);
  // Operators, too.
  const split: Kernel = { ...small(200), operator: 'split' };
  const others = { ...measured, operators: { sum: [{ bytes: 100, seconds: 9 }] } };
  expect(kernelCost(split, others).workSeconds).toBe(2.5);
  const cut = { ...measured, operators: { split: [{ bytes: 100, seconds: 9 }] } };
  expect(kernelCost(split, cut).workSeconds).toBe(18);
  expect(kernelCost(small(200), cut).workSeconds).toBe(2.5);
});

it('names the rate that is missing', () => {
  expect(() => kernelCost({ ...product(1, 1, 1), type: 'int4' }, device)).toThrow(/peakFlops\.int4/);
});

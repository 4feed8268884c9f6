import { modelShape, parseProfile, relativeLatency } from '@cqil/core';
import { expect, it } from 'vitest';
import { isBindable } from '../session/native/bindable-session.js';
import { openSession } from '../session/open.js';
import {
  attentionGraph,
  chainGraph,
  laggedGraph,
  normsGraph,
  type OperatorShape,
  operatorsGraph,
  productsGraph,
  spacedGraph,
} from './graphs.js';
import { measureProfile, workOf } from './measure.js';
import { measurePartition } from './partition.js';

const TINY = [
  { m: 1, k: 64, n: 32, weights: 'float32' },
  { m: 2, k: 64, n: 32, weights: 'int4' },
  { m: 2, k: 64, n: 32, weights: 'int8' },
] as const;
const ATTENTION = { tokens: 1, context: 5, heads: 4, kvHeads: 2, headDim: 16 };

async function run(graph: Uint8Array, dims: readonly number[], value = 1) {
  await using session = await openSession(graph, { threads: 1 });
  const data = new Float32Array(dims.reduce((a, b) => a * b, 1)).fill(value);
  return session.run({ x: { type: 'float32', dims, data } });
}

it('writes graphs that ONNX Runtime computes: a product each, with weights of its own', async () => {
  for (const shape of TINY) {
    const found = await run(productsGraph(shape, 3), [shape.m, shape.k]);
    expect(Object.keys(found)).toEqual(['y0', 'y1', 'y2']);
    for (const { dims } of Object.values(found)) expect(dims).toEqual(shape.m > 1 ? [1, 1] : [1, 32]);
    const [a, b] = [found.y0!.data as Float32Array, found.y1!.data as Float32Array];
    expect(a.every(Number.isFinite)).toBe(true);
    expect(a[0]).not.toBe(b[0]);
    // Float weights are between 0.001 and 0.064.
    if (shape.weights === 'float32') expect(a[0]! / shape.k).toBeGreaterThan(0.001);
  }
});

it('writes small products with nodes between that change next to nothing', async () => {
  const [plain, spaced] = [
    await run(spacedGraph(2, 0), [1, 256], 0.01),
    await run(spacedGraph(2, 3), [1, 256], 0.01),
  ];
  const [a, b] = [plain.y!.data as Float32Array, spaced.y!.data as Float32Array];
  expect(a[7]).toBeGreaterThan(0);
  expect(b[7]! / a[7]!).toBeCloseTo(1.0001 ** 6, 5);
});

it('writes norms over a stream that each adds to', async () => {
  const { y } = await run(normsGraph(2, 8, 3), [1, 2, 8], 2);
  expect(y!.dims).toEqual([1, 2, 8]);
  // Of equal elements every norm makes ones.
  for (const value of y!.data as Float32Array) expect(value).toBeCloseTo(1, 4);
});

it('writes chains that come to what their nodes say', async () => {
  const { y } = await run(chainGraph(5), [1, 8], 2);
  expect((y!.data as Float32Array)[3]).toBeCloseTo(2 * 1.0001 ** 5, 5);
});

it('writes sums of the value before and of one further back', async () => {
  const of = async (count: number) => {
    const { y } = await run(laggedGraph(8, 3, count), [1], 0.5);
    return (y!.data as Float32Array)[0]!;
  };
  // Each is the last and the third from it; none adds nothing to the last of those that are given.
  const found = await Promise.all([0, 1, 2, 3, 4, 5].map(of));
  expect(found[3]! - found[2]!).toBeCloseTo(found[0]!, 5);
  expect(found[5]! - found[4]!).toBeCloseTo(found[2]!, 5);
});

it('writes small operators, each on a value of its own', async () => {
  const first = async (shape: OperatorShape, none: boolean) => {
    const found = await run(operatorsGraph(shape, 2, none), [1], 1);
    expect(Object.keys(found).filter((name) => name.startsWith('y'))).toEqual(['y0', 'y1']);
    const [a, b, half] = [found.y0!, found.y1!, found.z0 ?? found.y0!].map(
      ({ data }) => (data as Float32Array)[0]!,
    );
    expect(a).not.toBe(b);
    return [a!, half!] as const;
  };
  const whole = { rows: 3, width: 64 };
  const [x] = await first({ operator: 'activation', ...whole }, true);
  expect(x).toBeGreaterThan(1);
  const [silu] = await first({ operator: 'activation', ...whole }, false);
  expect(silu).toBeCloseTo(x / (1 + Math.exp(-x)), 5);
  const [gate, up] = await first({ operator: 'split', ...whole }, false);
  expect(gate).toBeCloseTo(x, 6);
  expect(up).not.toBe(gate);
  const [sum] = await first({ operator: 'sum', ...whole, block: 32 }, false);
  // Values are 1 and 0.001 to 0.064.
  expect(sum).toBeGreaterThan(32.03);
  expect(sum).toBeLessThan(34.1);
});

it('measures a profile that can be read', async () => {
  const seen: number[] = [];
  const profile = await measureProfile({
    products: TINY,
    attentions: [ATTENTION],
    norms: [
      { rows: 1, width: 64 },
      { rows: 3, width: 64 },
    ],
    operators: [
      { operator: 'activation', rows: 3, width: 64 },
      { operator: 'sum', rows: 3, width: 128, block: 32 },
      { operator: 'sum', rows: 3, width: 64, block: 32 },
    ],
    threads: 1,
    repeats: 4,
    spreadBytes: 1,
    onProgress: ({ done }) => done !== undefined && seen.push(done),
  });
  expect(parseProfile(JSON.parse(JSON.stringify(profile)))).toEqual(profile);
  const [device] = profile.devices;
  expect(device!.products!.map(({ m, weightBits }) => [m, weightBits])).toEqual([
    [1, 32],
    [2, 5],
    [2, 9],
  ]);
  expect(device!.attention).toEqual([{ type: 'float32', ...ATTENTION, seconds: expect.any(Number) }]);
  expect(device!.elementwise!.map(({ bytes }) => bytes)).toEqual([12288, 196608, 1572864, 12582912]);
  expect(device!.runSeconds + device!.launchSeconds).toBeGreaterThan(0);
  expect(device!.norms!.map(({ bytes }) => bytes)).toEqual([1024, 3072]);
  const operators = Object.entries(device!.operators!);
  expect(operators.map(([name, points]) => [name, points.map(({ bytes }) => bytes)])).toEqual([
    ['activation', [4 * 2 * 3 * 64]],
    ['sum', [4 * 3 * 66, 4 * 3 * 132]],
  ]);
  expect(seen).toEqual(Array.from({ length: 15 }, (_, i) => i));
});

it('stops when told to', async () => {
  const stopped = measureProfile({ products: TINY, signal: AbortSignal.abort(new Error('enough')) });
  await expect(stopped).rejects.toThrow('enough');
});

it('knows what a model is made of', () => {
  const shape = modelShape('smollm2-135m');
  const { products, attentions, norms } = workOf(shape, 64, [1]);
  expect(norms).toEqual([
    { rows: 1, width: 576 },
    { rows: 64, width: 576 },
  ]);
  expect(products.slice(0, 6)).toEqual([
    { m: 1, k: 576, n: 576, weights: 'int4' },
    { m: 1, k: 576, n: 192, weights: 'int4' },
    { m: 1, k: 576, n: 1536, weights: 'int4' },
    { m: 1, k: 1536, n: 576, weights: 'int4' },
    // Logits are wanted of one position.
    { m: 1, k: 576, n: 49152, weights: 'int8' },
    { m: 64, k: 576, n: 576, weights: 'int4' },
  ]);
  const heads = { heads: 9, kvHeads: 3, headDim: 64 };
  expect(attentions).toEqual([
    { tokens: 1, context: 64, ...heads },
    { tokens: 64, context: 0, ...heads },
    { tokens: 1, context: 512, ...heads },
  ]);
  const wide = workOf(shape, 64, [2]);
  expect(wide.products).toContainEqual({ m: 1, k: 3072, n: 576, weights: 'int4' });
  expect(wide.attentions[0]).toMatchObject({ heads: 18, kvHeads: 6 });
  const apart = workOf({ ...shape, offsets: { block: 32, digits: 2 } }, 64, [1]);
  expect(apart.products).toContainEqual({ m: 1, k: 640, n: 1536, weights: 'int4' });
  expect(apart.operators).toEqual([
    { operator: 'activation', rows: 64, width: 1536 },
    { operator: 'sum', rows: 64, width: 576, block: 32 },
    { operator: 'sum', rows: 64, width: 1536, block: 32 },
  ]);
  const cut = workOf({ ...shape, kernels: { ...shape.kernels, activation: 3 } }, 64, [1, 2, 4]);
  expect(cut.operators).toContainEqual({ operator: 'split', rows: 64, width: 8 * 1536 });
  expect(workOf({ ...shape, headDim: 60 }).attentions).toEqual([]);
});

it('writes attentions that append to their caches in place', async () => {
  const shape = { tokens: 2, context: 3, heads: 4, kvHeads: 2, headDim: 16 };
  await using session = await openSession(attentionGraph(shape, 16, 2), { threads: 1 });
  if (!isBindable(session)) throw new Error('no native binding');
  const cache = () =>
    session.resident({ type: 'float32', dims: [1, 2, 16, 16], data: new Float32Array(512) });
  const caches = { k0: cache(), v0: cache(), k1: cache(), v1: cache() };
  const outputs = Object.fromEntries(Object.entries(caches).map(([name, value]) => [`p${name}`, value]));
  const binding = session.bind(caches, { y0: 'tensor', y1: 'tensor', ...outputs });
  const { y0, y1 } = await session.runBound(binding, {
    x: { type: 'float32', dims: [1, 2, 128], data: new Float32Array(256).fill(1) },
    lengths: { type: 'int32', dims: [1], data: Int32Array.of(4) },
    total: { type: 'int32', dims: [], data: Int32Array.of(5) },
    bias: { type: 'float32', dims: [1, 1, 2, 5], data: new Float32Array(10) },
  });
  expect(y0!.dims).toEqual([1, 1, 64]);
  expect(y1!.data).toEqual(y0!.data);
  const values = caches.v0.memory as Float32Array;
  // Positions 3 and 4 of the first head were written, and no other.
  expect([...values.subarray(0, 16 * 6)].map(Boolean)).toEqual(
    Array.from({ length: 96 }, (_, i) => i >= 48 && i < 80),
  );
});

it('refuses what measures nothing', async () => {
  for (const options of [
    { products: [] },
    { products: TINY, threads: 0 },
    { products: TINY, repeats: 1 },
    { products: [{ m: 1, k: 40, n: 8, weights: 'int4' as const }] },
    { products: TINY, attentions: [{ ...ATTENTION, heads: 3 }] },
    { products: TINY, attentions: [{ ...ATTENTION, headDim: 20 }] },
    { products: TINY, sessions: 0 },
    { products: TINY, operators: [{ operator: 'split' as const, rows: 1, width: 3 }] },
    { products: TINY, operators: [{ operator: 'sum' as const, rows: 1, width: 48, block: 32 }] },
  ]) {
    await expect(measureProfile(options)).rejects.toThrow(/measure nothing/);
  }
});

it('measures the devices of a partition, each alone and all together', async () => {
  const options = { products: [TINY[0]], repeats: 4, secondsEach: 0.01, spreadBytes: 1 };
  const profile = await measurePartition(['cpu:0', 'cpu:1'], options);
  expect(parseProfile(JSON.parse(JSON.stringify(profile)))).toEqual(profile);
  expect(profile.devices.map(({ id }) => id)).toEqual(['all', 'cpu:0', 'cpu:1']);
  const latency = relativeLatency({
    shape: modelShape('smollm2-135m'),
    profile,
    branches: ['cpu:0', 'cpu:1'],
  });
  expect(latency.change({ layers: [3, 4], bypass: 0 })).toBeLessThan(1);
  for (const devices of [['cpu:0'], ['cpu:0', 'cpu:0'], ['cpu:0', 'gpu']]) {
    await expect(measurePartition(devices, options)).rejects.toMatchObject({ code: 'DEVICES_INVALID' });
  }
});

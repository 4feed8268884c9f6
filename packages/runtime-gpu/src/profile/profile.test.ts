import { parseProfile } from '@cqil/core';
import { expect, it } from 'vitest';
import { openSession } from '../session/open.js';
import { chainGraph, productsGraph } from './graphs.js';
import { measureProfile, productsOf } from './measure.js';

const TINY = [
  { m: 1, k: 64, n: 32, weights: 'float32' },
  { m: 2, k: 64, n: 32, weights: 'int4' },
] as const;

async function run(graph: Uint8Array, dims: readonly number[], value = 1) {
  await using session = await openSession(graph, { threads: 1 });
  const data = new Float32Array(dims.reduce((a, b) => a * b, 1)).fill(value);
  return session.run({ x: { type: 'float32', dims, data } });
}

it('writes graphs that ONNX Runtime computes: a product each, with weights of its own', async () => {
  for (const shape of TINY) {
    const found = await run(productsGraph(shape, 3), [shape.m, shape.k]);
    expect(Object.keys(found)).toEqual(['y0', 'y1', 'y2']);
    for (const { dims } of Object.values(found)) expect(dims).toEqual([shape.m, 32]);
    const [a, b] = [found.y0!.data as Float32Array, found.y1!.data as Float32Array];
    expect(a.every(Number.isFinite)).toBe(true);
    expect(a[0]).not.toBe(b[0]);
    // Float weights are between 0.001 and 0.064.
    if (shape.weights === 'float32') expect(a[0]! / shape.k).toBeGreaterThan(0.001);
  }
});

it('writes chains that come to what their nodes say', async () => {
  const { y } = await run(chainGraph(5), [1, 8], 2);
  expect((y!.data as Float32Array)[3]).toBeCloseTo(2 * 1.0001 ** 5, 5);
});

it('measures a profile that can be read', async () => {
  const seen: number[] = [];
  const profile = await measureProfile({
    products: TINY,
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
  ]);
  expect(device!.runSeconds + device!.launchSeconds).toBeGreaterThan(0);
  expect(seen).toEqual([0, 1, 2, 3]);
});

it('stops when told to', async () => {
  const stopped = measureProfile({ products: TINY, signal: AbortSignal.abort(new Error('enough')) });
  await expect(stopped).rejects.toThrow('enough');
});

it('knows the products of a model', () => {
  const model = { hidden: 576, heads: 9, kvHeads: 3, headDim: 64, ffn: 1536, vocabulary: 49152 };
  expect(productsOf(model, 'int4', [1])).toEqual([
    { m: 1, k: 576, n: 576, weights: 'int4' },
    { m: 1, k: 576, n: 192, weights: 'int4' },
    { m: 1, k: 576, n: 960, weights: 'int4' },
    { m: 1, k: 576, n: 1536, weights: 'int4' },
    { m: 1, k: 1536, n: 576, weights: 'int4' },
    { m: 1, k: 576, n: 49152, weights: 'int4' },
  ]);
  expect(productsOf(model, 'float32')).toHaveLength(11);
});

it('refuses what measures nothing', async () => {
  for (const options of [
    { products: [] },
    { products: TINY, threads: 0 },
    { products: TINY, repeats: 1 },
    { products: [{ m: 1, k: 40, n: 8, weights: 'int4' as const }] },
  ]) {
    await expect(measureProfile(options)).rejects.toThrow(/measure nothing/);
  }
});

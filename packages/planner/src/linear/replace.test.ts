import { parsePlan } from '@cqil/core';
import { describe, expect, it } from 'vitest';
import { analyze } from '../anatomy/index.js';
import { checkModel } from '../onnx/check.js';
import { type Model, nodeInputs, operatorName, readModel, Tensor } from '../onnx/index.js';
import { rewriteBranches } from '../rewrite/index.js';
import { type LinearMap, linearMaps, type MatrixReplacement, readMatrix, replaceMatrices } from './index.js';
import { DECODERS, distance, logitsOf, testdata } from './testing/fixtures.js';

const session = { threads: 1 } as const;

async function load(file: string): Promise<{ model: Model; maps: readonly LinearMap[] }> {
  const model = await readModel(testdata(file));
  return { model, maps: linearMaps(model, analyze(model)).maps };
}

async function itself(model: Model, maps: readonly LinearMap[]): Promise<MatrixReplacement[]> {
  const list: MatrixReplacement[] = [];
  for (const map of maps) {
    const { weight, bias } = await readMatrix(model, map, session);
    list.push({ map, weight, bias });
  }
  return list;
}

function zeros(map: LinearMap): MatrixReplacement {
  const weight = new Float32Array(map.inFeatures * map.outFeatures);
  return { map, weight, bias: map.hasBias ? new Float32Array(map.outFeatures) : undefined };
}

/** Nothing is left that nothing reads, and nothing is read that is not there. */
function isWhole(model: Model): void {
  checkModel(model);
  const read = new Set([
    ...model.graph.nodes.flatMap(nodeInputs),
    ...model.graph.outputs.map(({ name }) => name),
  ]);
  expect([...model.graph.initializers.keys()].filter((name) => !read.has(name))).toEqual([]);
}

/** Root mean square of the difference, relative to how the expected values are spread. */
function relative(found: Float32Array, expected: Float32Array): number {
  const mean = expected.reduce((sum, value) => sum + value / expected.length, 0);
  let [apart, spread] = [0, 0];
  for (const [i, value] of expected.entries()) {
    apart += ((found[i] as number) - value) ** 2;
    spread += (value - mean) ** 2;
  }
  return Math.sqrt(apart / spread);
}

describe.each(DECODERS)('%s', (file, storage) => {
  it('computes the same when each matrix is replaced by itself', { timeout: 120_000 }, async () => {
    const { model, maps } = await load(file);
    const replacements = await itself(model, maps);
    const expected = await logitsOf(model);
    const whole = replaceMatrices(model, replacements, { storage: 'float' });
    const found = await logitsOf(whole);
    if (storage === 'float32') {
      expect(distance(found, expected)).toBeLessThanOrEqual(1e-4);
    } else {
      // What rounds its inputs to 8 bits is replaced by what does not: measured up to 3.0 %.
      expect(relative(found, expected)).toBeLessThanOrEqual(0.05);
    }
    const names = (of: Model) =>
      [of.graph.inputs, of.graph.outputs].map((list) => list.map(({ name }) => name));
    expect(names(whole)).toEqual(names(model));
    expect(whole.rest.metadataProps).toEqual(model.rest.metadataProps);
    checkModel(whole);
    // Of the old matrices none is left: each has one product, and a bias only where there was one.
    const made = whole.graph.nodes.filter(({ name }) => name.startsWith('/cqil/refit/layer.'));
    const ops = made.map(operatorName).filter((op) => op === 'MatMul' || op === 'Add');
    expect(ops.filter((op) => op === 'MatMul')).toHaveLength(maps.length);
    expect(ops.filter((op) => op === 'Add')).toHaveLength(maps.filter(({ hasBias }) => hasBias).length);
  });

  it('is close when each matrix is replaced by itself in blocks of 8 bits', {
    timeout: 120_000,
  }, async () => {
    const { model, maps } = await load(file);
    const blocky = maps.filter(({ inFeatures }) => inFeatures % 32 === 0);
    const replacements = await itself(model, blocky);
    const blocks = replaceMatrices(model, replacements, { storage: 'int8-blocks' });
    checkModel(blocks);
    const made = blocks.graph.nodes.filter(({ name }) => name.startsWith('/cqil/refit/'));
    expect(made.filter(({ opType }) => opType === 'MatMulNBits')).toHaveLength(blocky.length);
    const expected = await logitsOf(model);
    // All of a model's matrices, and their inputs, off by up to half a step of 127: measured up to 3.8 %.
    expect(relative(await logitsOf(blocks), expected)).toBeLessThanOrEqual(0.05);
    for (const { map, weight } of replacements.filter((_, i) => i % 7 === 0)) {
      const back = await readMatrix(blocks, map, session);
      const largest = Math.max(...weight.map(Math.abs));
      expect(distance(back.weight, weight)).toBeLessThanOrEqual(largest * (0.5 / 127 + 1e-3));
      // In half precision, rounding to 8 bits is no worse than other rounding.
      if (storage !== 'float16') expect(back.exact).toBe(false);
    }
  });
});

describe('replaceMatrices', () => {
  it('takes what a layer adds away when its matrix is zero', async () => {
    const { model, maps } = await load('genai-fp32/llama/model.onnx');
    const map = maps.find(({ layer, role }) => layer === 3 && role === 'down')!;
    const without = replaceMatrices(model, [zeros(map)]);
    isWhole(without);
    // The same by hand: the weight itself is set to zero.
    const byHand = model.clone();
    const name = map.nodes[0]!.input[1]!;
    const { dataType, dims, byteLength } = model.graph.initializers.get(name)!;
    byHand.graph.initializers.set(name, Tensor.create(name, dataType, dims, new Uint8Array(byteLength)));
    const expected = await logitsOf(byHand);
    expect(distance(await logitsOf(without), expected)).toBe(0);
    expect(distance(await logitsOf(model), expected)).toBeGreaterThan(1e-3);
    expect(without.graph.initializers.has(name)).toBe(false);
    expect(model.graph.initializers.has(name)).toBe(true);
  });

  it.each([
    ['genai-int4/llama/model.onnx', 'com.microsoft::MatMulNBits'],
    ['optimum/llama/onnx/model_quantized.onnx', 'com.microsoft::MatMulNBits'],
    ['optimum/llama/onnx/model.onnx', 'MatMul'],
    ['optimum/llama/onnx/model_fp16.onnx', 'MatMul'],
  ])('stores a matrix as %s stores its own: %s', async (file, operator) => {
    const { model, maps } = await load(file);
    const down = maps.filter(({ role }) => role === 'down');
    const replaced = replaceMatrices(model, down.map(zeros));
    isWhole(replaced);
    const made = replaced.graph.nodes.filter(({ name }) => name.startsWith('/cqil/refit/'));
    expect(made.map(operatorName)).toEqual(down.map(() => operator));
    expect(made.map(({ name }) => name)).toEqual(
      down.map(({ layer }) => `/cqil/refit/layer.${layer}/down/${operator.split('::').at(-1)}`),
    );
    for (const domain of new Set(made.map((node) => node.domain)))
      expect(replaced.opsets.has(domain)).toBe(true);
  });

  it('stays with floating point where blocks do not divide the inputs', async () => {
    const { model, maps } = await load('families/opt/optimum/onnx/model_q4f16.onnx');
    const down = maps.find(({ role }) => role === 'down')!;
    expect(down.inFeatures).toBe(48);
    const made = replaceMatrices(model, [zeros(down)]).graph.nodes.filter(({ name }) => /cqil/.test(name));
    expect(made.map(operatorName)).toEqual(['MatMul', 'Add']);
    expect(() => replaceMatrices(model, [zeros(down)], { storage: 'int8-blocks' })).toThrow(
      expect.objectContaining({ code: 'MAP_STORAGE' }),
    );
  });

  it('leaves a weight that something else reads', async () => {
    const { model, maps } = await load('genai-fp32/llama/model.onnx');
    const [first, second] = maps.filter(({ role }) => role === 'down');
    const tied = model.clone();
    const shared = first!.nodes[0]!.input[1]!;
    const product = tied.graph.nodes.find((node) => node.output[0] === second!.output)!;
    product.input[1] = shared;
    const replaced = replaceMatrices(tied, [zeros(first!)]);
    expect(replaced.graph.initializers.has(shared)).toBe(true);
    expect(replaceMatrices(replaced, [zeros(second!)]).graph.initializers.has(shared)).toBe(false);
  });

  it('works in a rewritten graph, once and again', async () => {
    const { model, maps } = await load('genai-fp32/qwen2/model.onnx');
    const plan = parsePlan({ version: 1, layers: 6, groups: [{ layers: [1, 2, 3], bypass: 1 }] });
    const rewritten = rewriteBranches(model, plan).model;
    const expected = await logitsOf(rewritten);
    const list = await itself(rewritten, maps);
    const once = replaceMatrices(rewritten, list);
    const twice = replaceMatrices(once, await itself(once, maps));
    isWhole(twice);
    expect(distance(await logitsOf(once), expected)).toBeLessThanOrEqual(1e-4);
    expect(distance(await logitsOf(twice), expected)).toBeLessThanOrEqual(1e-4);
    expect(twice.graph.nodes).toHaveLength(once.graph.nodes.length);
    expect(twice.graph.initializers.size).toBe(rewritten.graph.initializers.size);
  });

  it('gives back what was put in, biases and all', async () => {
    const { model, maps } = await load('optimum/gpt2/onnx/model.onnx');
    const wave = (length: number, step: number) =>
      Float32Array.from({ length }, (_, i) => Math.sin(i * step));
    const list = maps.map((map, index) => ({
      map,
      weight: wave(map.inFeatures * map.outFeatures, index + 1),
      bias: wave(map.outFeatures, index + 0.5),
    }));
    const replaced = replaceMatrices(model, list);
    isWhole(replaced);
    for (const { map, weight, bias } of list.slice(0, 8)) {
      const back = await readMatrix(replaced, map, session);
      expect(distance(back.weight, weight)).toBeLessThan(3e-7);
      expect(back.bias).toEqual(bias);
      expect(back.exact).toBe(true);
    }
  });

  it('does not change the model that it is given', async () => {
    const { model, maps } = await load('optimum/gpt2/onnx/model.onnx');
    const before = model.graph.nodes.map((node) => ({ ...node }));
    const weights = [...model.graph.initializers.keys()];
    replaceMatrices(model, maps.map(zeros));
    expect(model.graph.nodes.map((node) => ({ ...node }))).toEqual(before);
    expect([...model.graph.initializers.keys()]).toEqual(weights);
  });

  it.each([
    ['a matrix of another size', (r: MatrixReplacement) => ({ ...r, weight: r.weight.subarray(1) })],
    ['a bias that is missing', (r: MatrixReplacement) => ({ ...r, bias: undefined })],
    ['a bias of another size', (r: MatrixReplacement) => ({ ...r, bias: new Float32Array(3) })],
    [
      'values that are no numbers',
      (r: MatrixReplacement) => ({ ...r, weight: r.weight.map(() => Number.NaN) }),
    ],
  ])('refuses %s', async (_, change) => {
    const { model, maps } = await load('optimum/gpt2/onnx/model.onnx');
    expect(() => replaceMatrices(model, [change(zeros(maps[1]!))])).toThrow(
      expect.objectContaining({ code: 'MAP_MATRIX' }),
    );
  });

  it('refuses a bias that the map does not have, a map twice, and a map that is not there', async () => {
    const { model, maps } = await load('genai-fp32/llama/model.onnx');
    const [map] = maps as [LinearMap];
    const biased = { ...zeros(map), bias: new Float32Array(map.outFeatures) };
    expect(() => replaceMatrices(model, [biased])).toThrow(expect.objectContaining({ code: 'MAP_MATRIX' }));
    expect(() => replaceMatrices(model, [zeros(map), zeros(map)])).toThrow(
      expect.objectContaining({ code: 'MAP_TWICE' }),
    );
    expect(() => replaceMatrices(model, [zeros({ ...map, output: 'elsewhere' })])).toThrow(
      expect.objectContaining({ code: 'MAP_NOT_FOUND' }),
    );
  });
});

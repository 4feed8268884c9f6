import { DecoderSession } from '@cqil/runtime-gpu';
import { describe, expect, it } from 'vitest';
import { analyze } from '../anatomy/index.js';
import { linearMaps, replaceMatrices } from '../linear/index.js';
import { DECODERS, distance, logitsOf, PROMPT, testdata } from '../linear/testing/fixtures.js';
import { checkModel } from '../onnx/check.js';
import {
  DataType,
  isFloatType,
  type Model,
  makeValueInfo,
  nodeInputs,
  readModel,
  Tensor,
} from '../onnx/index.js';
import { openVariant } from '../variant/index.js';
import { skipLayers } from './index.js';

/** A value of the norm behind a layer's branches, in models that have one. */
const POST_NORM = /layers\.(\d+)\/post_(attention|feedforward)_layernorm\//;

/**
 * The same model with layers that add nothing: the last matrices of their branches, or the gains of the norms behind
 * them, are zero.
 */
async function silenced(model: Model, layers: readonly number[]): Promise<Model> {
  const { maps, refusals } = linearMaps(model, analyze(model));
  const last = maps.filter(({ layer, role }) => layers.includes(layer) && (role === 'o' || role === 'down'));
  const copy = replaceMatrices(
    model,
    last.map((map) => ({
      map,
      weight: new Float32Array(map.inFeatures * map.outFeatures),
      bias: map.hasBias ? new Float32Array(map.outFeatures) : undefined,
    })),
    { storage: 'float' },
  );
  const behind = refusals.some(({ refused }) => refused.startsWith('a norm stands behind'));
  for (const node of behind ? model.graph.nodes : []) {
    if (!layers.includes(Number(POST_NORM.exec(node.output[0] ?? '')?.[1]))) continue;
    for (const name of node.input) silence(copy, name);
  }
  // A bias that a fused norm adds is a contribution of its own.
  for (const layer of analyze(copy).layers.filter(({ index }) => layers.includes(index))) {
    for (const branch of [layer.attention, layer.ffn]) {
      for (const value of branch?.add.contributions ?? []) {
        silence(copy, value);
      }
    }
  }
  return copy;
}

function silence(model: Model, name: string): void {
  const tensor = model.graph.initializers.get(name);
  if (tensor === undefined || !isFloatType(tensor.dataType)) return;
  const zeros = new Uint8Array(tensor.byteLength);
  model.graph.initializers.set(name, Tensor.create(name, tensor.dataType, tensor.dims, zeros));
}

describe.each(DECODERS)('%s', (file, storage) => {
  it('without layers computes what it does when they add nothing', { timeout: 60_000 }, async () => {
    const model = await readModel(testdata(file));
    const { layers } = analyze(model);
    const end = layers.length - 1;
    for (const skipped of [[0], [1, 2], [0, 2, end]]) {
      const without = skipLayers(model, skipped);
      checkModel(without);
      const found = await logitsOf(without);
      const expected = await logitsOf(await silenced(model, skipped));
      const scale = Math.max(...expected.map(Math.abs));
      expect(distance(found, expected)).toBeLessThanOrEqual(scale * (storage === 'float16' ? 5e-3 : 1e-5));
      expect(distance(found, await logitsOf(model))).toBeGreaterThan(scale * 1e-3);
    }
  });

  it('decodes with the cache as it computes a whole sequence', { timeout: 60_000 }, async () => {
    const model = skipLayers(await readModel(testdata(file)), [0, 2]);
    const decoder = new DecoderSession(await openVariant(model, { threads: 1 }));
    try {
      const whole = await decoder.forward({ inputIds: [PROMPT], returnCache: false });
      const vocabulary = whole.logits.dims[2];
      let step = await decoder.forward({ inputIds: [PROMPT.slice(0, 6)] });
      for (const [at, id] of PROMPT.entries()) {
        if (at < 6) continue;
        step = await decoder.forward({ inputIds: [[id]], cache: step.cache });
        const row = whole.logits.data.subarray(at * vocabulary, (at + 1) * vocabulary);
        // 8-bit models round their inputs by the range of all tokens at once.
        const limit = storage === 'float32' ? 1e-4 : 0.05 * Math.max(...row.map(Math.abs));
        expect(distance(step.logits.data, row)).toBeLessThanOrEqual(limit);
      }
    } finally {
      await decoder.dispose();
    }
  });

  it('is a decoder of fewer layers, with nothing left of those that went', async () => {
    const model = await readModel(testdata(file));
    const before = analyze(model);
    const without = skipLayers(model, [1, 2]);
    const { layers } = analyze(without);
    const left = before.layers.filter(({ index }) => index !== 1 && index !== 2);
    expect(layers.map(({ kind }) => kind)).toEqual(left.map(({ kind }) => kind));
    expect(layers.map(({ cache }) => cache)).toEqual(left.map(({ cache }) => cache));
    const gone = before.layers.slice(1, 3).flatMap(({ cache }) => [...cache.inputs, ...cache.outputs]);
    const names = new Set([
      ...without.graph.inputs.map(({ name }) => name),
      ...without.graph.outputs.map(({ name }) => name),
      ...without.graph.nodes.flatMap((node) => [...nodeInputs(node), ...node.output]),
    ]);
    expect(gone.filter((name) => names.has(name))).toEqual([]);
    const read = new Set(without.graph.nodes.flatMap(nodeInputs));
    expect([...without.graph.initializers.keys()].filter((name) => !read.has(name))).toEqual([]);
    expect(without.graph.initializers.size).toBeLessThan(model.graph.initializers.size);
    // What was found in the whole model holds for the layers that are left, but where they read the stream itself.
    const { maps } = linearMaps(model, before);
    const kept = maps.filter(({ layer, role }) => (layer < 1 || layer > 3) && role !== 'qkv');
    const later = linearMaps(without, analyze(without)).maps;
    for (const map of kept) {
      expect(later.map(({ input, output }) => [input, output])).toContainEqual([map.input, map.output]);
    }
  });
});

describe('skipLayers', () => {
  it('of no layers is the model itself', async () => {
    const model = await readModel(testdata('genai-fp32/llama/model.onnx'));
    const same = skipLayers(model, []);
    expect(same.graph.nodes).toEqual(model.graph.nodes);
    expect(same.graph.inputs).toEqual(model.graph.inputs);
  });

  it('does not change the model that it is given', async () => {
    const model = await readModel(testdata('optimum/llama/onnx/model.onnx'));
    const before = model.graph.nodes.map((node) => ({ ...node }));
    const inputs = model.graph.inputs.length;
    skipLayers(model, [0, 1]);
    expect(model.graph.nodes.map((node) => ({ ...node }))).toEqual(before);
    expect(model.graph.inputs).toHaveLength(inputs);
  });

  it.each([[[0, 1, 2, 3, 4, 5]], [[6]], [[-1]], [[1.5]]])(
    'refuses to skip %j of six layers',
    async (layers) => {
      const model = await readModel(testdata('genai-fp32/llama/model.onnx'));
      expect(() => skipLayers(model, layers)).toThrow(expect.objectContaining({ code: 'SKIP_LAYERS' }));
    },
  );

  it('refuses to take away a state that the graph gives', async () => {
    const model = (await readModel(testdata('genai-fp32/llama/model.onnx'))).clone();
    const { layers } = analyze(model);
    model.graph.outputs.push(makeValueInfo(layers[2]!.output, DataType.FLOAT, ['batch', 'seq', 64]));
    expect(() => skipLayers(model, [2])).toThrow(expect.objectContaining({ code: 'SKIP_STATE_READ' }));
    expect(() => skipLayers(model, [3])).not.toThrow();
  });
});

import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { analyze } from '../anatomy/index.js';
import { importGguf } from '../gguf/index.js';
import { tinyPairs, tinyTensors } from '../gguf/testing/tiny-llama.js';
import { writeGguf } from '../gguf/testing/write-gguf.js';
import { distance, logitsOf, testdata } from '../linear/testing/fixtures.js';
import { type Model, operatorName, readModel } from '../onnx/index.js';
import { rewriteGroups } from '../rewrite/index.js';
import { quantise } from './index.js';

const session = { threads: 1 };

/** Token ids that look like text: common ones come often. */
function windowsOf(count: number, length: number, vocabulary = 256): number[][] {
  let state = 7;
  return Array.from({ length: count }, () =>
    Array.from({ length }, () => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return 1 + Math.floor((state / 2 ** 32) ** 3 * (vocabulary - 1));
    }),
  );
}

const calibration = windowsOf(4, 32);

function operators(model: Model): Map<string, number> {
  const counts = new Map<string, number>();
  for (const node of model.graph.nodes) {
    const name = operatorName(node);
    counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  return counts;
}

function storedMatrices({ graph }: Model): number {
  return [...graph.initializers.keys()].filter((name) => /weight_codes(_\d+)?$/.test(name)).length;
}

/** Mean square of the difference over mean square. */
function relative(found: Float32Array, truth: Float32Array): number {
  expect(found.length).toBe(truth.length);
  let [error, size] = [0, 0];
  for (const [i, value] of truth.entries()) {
    error += (found[i]! - value) ** 2;
    size += value ** 2;
  }
  return error / size;
}

/** Graph, products in its layers, whether to calibrate it, too; all divide into blocks of 16. */
const MODELS = [
  ['optimum/llama/onnx/model.onnx', 42, false],
  ['optimum/llama/onnx/model_fp16.onnx', 42, true],
  ['optimum/gpt2/onnx/model.onnx', undefined, true],
  ['optimum/qwen2/onnx/model.onnx', 42, false],
  ['optimum/phi3/onnx/model.onnx', undefined, false],
  ['genai-fp32/llama/model.onnx', undefined, true],
  ['families/bloom/optimum/onnx/model.onnx', undefined, false],
  ['families/gemma2/genai-fp32/model.onnx', undefined, false],
  ['families/gemma3_text/optimum/onnx/model.onnx', undefined, true],
  ['families/gpt_neox/optimum/onnx/model.onnx', undefined, true],
  ['families/granite/optimum/onnx/model.onnx', undefined, false],
  ['families/olmo2/optimum/onnx/model.onnx', undefined, false],
  ['families/opt/optimum/onnx/model.onnx', undefined, true],
  ['families/phi/optimum/onnx/model.onnx', undefined, false],
  ['families/qwen3/optimum/onnx/model.onnx', undefined, false],
] as const;

describe.each(MODELS)('quantise %s', (file, layers, calibrated) => {
  it('gives every matrix 8 bits, and nearly the same logits', async () => {
    const source = await readModel(testdata(file));
    const { model, matrices, left, method } = await quantise(source, { bits: 8, blockSize: 16, session });
    expect(method).toBe('rtn');
    expect(left).toEqual([]);
    const products = matrices.filter(({ use }) => use === 'product');
    if (layers !== undefined) expect(products).toHaveLength(layers);
    expect(matrices.map(({ use }) => use)).toContain('head');
    expect(matrices.map(({ use }) => use)).toContain('embedding');
    expect(operators(model).get('com.microsoft::MatMulNBits')).toBe(matrices.length - 1);
    for (const { error, bits } of matrices) {
      expect(bits).toBe(8);
      expect(error).toBeGreaterThan(0);
      expect(error).toBeLessThan(1e-4);
    }
    expect(relative(await logitsOf(model), await logitsOf(source))).toBeLessThan(4e-3);
    expect(model.graph.inputs).toEqual(source.graph.inputs);
    expect(model.graph.outputs).toEqual(source.graph.outputs);
  });

  it.runIf(calibrated)('goes through all layers with calibration text', async () => {
    const source = await readModel(testdata(file));
    const { model, matrices, method } = await quantise(source, {
      blockSize: 16,
      calibration,
      session,
    });
    expect(method).toBe('gptq');
    expect(matrices.filter(({ use }) => use === 'product').every(({ bits }) => bits === 4)).toBe(true);
    expect(relative(await logitsOf(model), await logitsOf(source))).toBeLessThan(0.2);
  });
});

describe('quantise', () => {
  const llama = () => readModel(testdata('optimum/llama/onnx/model.onnx'));

  it('gives the same at every run, and leaves the source alone', async () => {
    const source = await llama();
    const before = await logitsOf(source);
    const first = await quantise(source, { calibration, session });
    const second = await quantise(source, { calibration, session });
    expect(second.matrices).toEqual(first.matrices);
    expect(distance(await logitsOf(first.model), await logitsOf(second.model))).toBe(0);
    expect(distance(await logitsOf(source), before)).toBe(0);
  });

  it('errs less on the text than rounding to nearest does', async () => {
    const source = await llama();
    const errors = async (method: 'rtn' | 'gptq') => {
      const { matrices } = await quantise(source, { calibration: windowsOf(8, 64), method, session });
      return matrices.filter(({ use }) => use === 'product').reduce((sum, { error }) => sum + error, 0);
    };
    expect(await errors('gptq')).toBeLessThan(0.8 * (await errors('rtn')));
  });

  it('gives 8 bits to those that err most, as many as it may', async () => {
    const source = await llama();
    const options = { calibration, session, method: 'rtn' } as const;
    const plain = await quantise(source, options);
    const mixed = await quantise(source, { ...options, finerShare: 0.3 });
    const size = (bits: number) =>
      mixed.matrices
        .filter((matrix) => matrix.use === 'product' && matrix.bits === bits)
        .reduce((sum, { inFeatures, outFeatures }) => sum + inFeatures * outFeatures, 0);
    expect(size(8)).toBeGreaterThan(0.2 * (size(4) + size(8)));
    expect(size(8)).toBeLessThanOrEqual(0.3 * (size(4) + size(8)));
    const truth = await logitsOf(source);
    const off = async ({ model }: typeof plain) => relative(await logitsOf(model), truth);
    expect(await off(mixed)).toBeLessThan(await off(plain));
    // What the 4-bit blocks were stored in is gone.
    expect(storedMatrices(mixed.model)).toBe(storedMatrices(plain.model));
  });

  it('tells by development text which need 8 bits', async () => {
    const source = await llama();
    const development = { window: 32, kinds: [{ kind: 'numbers', windows: windowsOf(2, 32, 300) }] };
    const options = { calibration, development, session, finerShare: 0.25 };
    const { model, matrices } = await quantise(source, options);
    const again = await quantise(source, options);
    expect(again.matrices).toEqual(matrices);
    const finer = matrices.filter(({ use, bits }) => use === 'product' && bits === 8);
    expect(finer.length).toBeGreaterThan(5);
    const { model: plain } = await quantise(source, { ...options, finerShare: 0 });
    const truth = await logitsOf(source);
    expect(relative(await logitsOf(model), truth)).toBeLessThan(relative(await logitsOf(plain), truth));
  });

  it('stores the table of a tied head once', async () => {
    const source = await readModel(testdata('families/gemma2/genai-fp32/model.onnx'));
    const { model, matrices } = await quantise(source, { blockSize: 16, session });
    expect(storedMatrices(model)).toBe(matrices.length - 1);
    expect(operators(model).get('com.microsoft::GatherBlockQuantized')).toBe(1);
  });

  it('leaves embedding and head, and what does not divide into blocks', async () => {
    const source = await llama();
    const { matrices, left, model } = await quantise(source, {
      embeddingBits: 'float',
      blockSize: 64,
      session,
    });
    expect(matrices.every(({ use }) => use === 'product')).toBe(true);
    expect(left).toHaveLength(6);
    expect(left[0]?.reason).toBe('160 inputs do not divide into blocks of 64');
    expect(operators(model).has('com.microsoft::GatherBlockQuantized')).toBe(false);
  });

  it.each([
    ['branches', undefined],
    ['wide', 'wide'],
  ] as const)('quantises planned models, %s', async (_, form) => {
    const source = await readModel(testdata('genai-fp32/llama/model.onnx'));
    const bypass = form === undefined ? 1 : 'full';
    const group = { layers: [1, 2, 3], bypass, ...(form === undefined ? {} : { form }) } as const;
    const layers = analyze(source).layers.length;
    const { model: planned } = await rewriteGroups(source, { version: 1, layers, groups: [group] });
    const { model, matrices, left } = await quantise(planned, { calibration, session });
    expect(left).toEqual([]);
    expect(matrices.length).toBeGreaterThan(8);
    expect(relative(await logitsOf(model), await logitsOf(planned))).toBeLessThan(0.1);
  });

  it('stops', async () => {
    const controller = new AbortController();
    const run = quantise(await llama(), {
      calibration,
      session,
      signal: controller.signal,
      onProgress: ({ done }) => done === 3 && controller.abort(new Error('enough')),
    });
    await expect(run).rejects.toThrow('enough');
  });

  it.each([
    [{ method: 'gptq' }, 'QUANTISE_TEXT'],
    [{ blockSize: 24 }, 'QUANTISE_OPTIONS'],
    [{ finerShare: 2 }, 'QUANTISE_OPTIONS'],
    [{ damping: 0 }, 'QUANTISE_OPTIONS'],
  ] as const)('refuses %j', async (options, code) => {
    await expect(quantise(await llama(), options)).rejects.toMatchObject({ code });
  });

  it.each([
    ['genai-int4/llama/model.onnx', 8],
    ['families/qwen3/genai-int4/model.onnx', 8],
    ['optimum/llama/onnx/model_quantized.onnx', 4],
  ] as const)('takes matrices of %s for what they stand for', async (file, bits) => {
    const source = await readModel(testdata(file));
    const { model, matrices } = await quantise(source, { bits, blockSize: 16, session });
    expect(matrices.filter(({ use }) => use === 'product').length).toBeGreaterThan(15);
    expect(relative(await logitsOf(model), await logitsOf(source))).toBeLessThan(bits === 8 ? 4e-3 : 0.2);
    expect(model.graph.nodes.some(({ name }) => name.includes('refit'))).toBe(false);
  });

  it('leaves out the nodes that minima beside blocks took', async () => {
    const dir = await mkdtemp(path.join(os.tmpdir(), 'cqil-quantise-'));
    onTestFinished(() => rm(dir, { recursive: true, force: true }));
    const file = path.join(dir, 'tiny.gguf');
    const tensors = tinyTensors({ type: 'Q4_1', embedding: 'Q4_1', biases: true });
    await writeFile(file, writeGguf({ pairs: tinyPairs(), tensors }));
    const { onnxFile } = await importGguf(file, path.join(dir, 'model'), { dtype: 'source' });
    const source = await readModel(onnxFile);
    const { model, matrices } = await quantise(source, { bits: 8, calibration, session });
    expect(operators(source).get('ReduceSum')).toBeGreaterThan(0);
    expect(operators(model).has('ReduceSum')).toBe(false);
    expect(matrices.map(({ use }) => use).slice(-2)).toEqual(['embedding', 'head']);
    expect(relative(await logitsOf(model), await logitsOf(source))).toBeLessThan(5e-3);
  });

  it('refuses a model without products', async () => {
    const source = await llama();
    await expect(quantise(source, { blockSize: 512, session })).rejects.toMatchObject({
      code: 'QUANTISE_NOTHING',
    });
  });
});

import { DecoderSession } from '@cqil/runtime-gpu';
import { describe, expect, it } from 'vitest';
import { analyze } from '../../anatomy/index.js';
import { distance, logitsOf, testdata } from '../../linear/testing/fixtures.js';
import { structuralFaults } from '../../onnx/check.js';
import { DataType, type Model, readModel } from '../../onnx/index.js';
import { rewriteBranches } from '../../rewrite/index.js';
import { openVariant } from '../../variant/index.js';
import { type QdqOptions, quantiseQdq } from './index.js';
import { observe } from './observe.js';
import { choose, prepared } from './qdq.js';
import { qdqSettings } from './settings.js';
import { stretchAt } from './stretches.js';
import { withPlainSums } from './sums.js';
import { recompute, stepOfNode } from './testing/reference.js';

const session = { threads: 1 };
const PROMPT = [5, 17, 21, 3, 9, 40, 11, 2, 33, 8, 60, 12];

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

const calibration = [...windowsOf(4, 32), PROMPT];

/** Root of the mean square of the difference over that of the truth. */
function relative(found: Float32Array, truth: Float32Array): number {
  expect(found.length).toBe(truth.length);
  let [error, size] = [0, 0];
  for (const [i, value] of truth.entries()) {
    error += (found[i]! - value) ** 2;
    size += value ** 2;
  }
  return Math.sqrt(error / size);
}

/** Holds every addition named to one step: all that it adds and what it gives, with zero points of 0. */
async function holdSums(model: Model, names: readonly string[], type: number): Promise<Set<number>> {
  const { graph } = model;
  const makers = graph.producers();
  const readers = graph.consumers();
  const scales = new Set<number>();
  for (const name of names) {
    const node = graph.nodes.find((one) => one.name === name);
    expect(node?.opType, name).toBe('Add');
    const [quantise, ...others] = readers.get(node?.output[0] ?? '') ?? [];
    expect(quantise?.opType, name).toBe('QuantizeLinear');
    expect(others, name).toEqual([]);
    const given = await stepOfNode(model, quantise!);
    expect(given.type).toBe(type);
    for (const term of node?.input ?? []) {
      const back = makers.get(term);
      expect(back?.opType, `${name} of ${term}`).toBe('DequantizeLinear');
      expect(await stepOfNode(model, back!), `${name} of ${term}`).toEqual(given);
    }
    scales.add(given.scale);
  }
  return scales;
}

/** The names of the additions that the anatomy of a graph tells, and of those that join groups. */
function sumsOf(source: Model): string[] {
  const model = withPlainSums(source);
  const adds = analyze(model).layers.flatMap(({ attention, ffn }) => [attention?.add, ffn?.add]);
  const joins = model.graph.nodes.filter(
    ({ name, opType }) => opType === 'Add' && name.startsWith('/cqil/group'),
  );
  return [...new Set([...adds.flatMap((add) => add?.node.name ?? []), ...joins.map(({ name }) => name)])];
}

const MODELS = [
  ['optimum/llama/onnx/model.onnx', 12],
  ['genai-fp32/llama/model.onnx', 12],
  ['optimum/gpt2/onnx/model.onnx', 13],
  ['families/gpt2/fused/model.onnx', 9],
  ['optimum/qwen2/onnx/model.onnx', 12],
  ['families/bloom/optimum/onnx/model.onnx', 8],
  ['families/gemma2/genai-fp32/model.onnx', 8],
  ['families/gemma3_text/optimum/onnx/model.onnx', 8],
  ['families/gpt_neox/optimum/onnx/model.onnx', 8],
  ['families/granite/optimum/onnx/model.onnx', 8],
  ['families/olmo2/optimum/onnx/model.onnx', 8],
  ['families/opt/optimum/onnx/model.onnx', 9],
  ['families/phi/optimum/onnx/model.onnx', 8],
  ['families/qwen3/optimum/onnx/model.onnx', 8],
] as const;

describe.each(MODELS)('quantiseQdq %s', (file, sums) => {
  it('adds integers of one step, and gives nearly the same logits', async () => {
    const source = await readModel(testdata(file));
    const truth = await logitsOf(source);
    const fine = await quantiseQdq(source, { calibration, inputBits: 16, residualTolerance: 1, session });
    expect(structuralFaults(fine.model)).toEqual(structuralFaults(source));
    expect(fine.residual).toMatchObject({ bits: 16, sums });
    const scales = await holdSums(fine.model, sumsOf(source), DataType.INT16);
    expect(scales.size).toBe(fine.residual.stretches.length);
    expect(fine.model.graph.inputs).toEqual(source.graph.inputs);
    expect(fine.model.graph.outputs).toEqual(source.graph.outputs);
    // What is left is what signed bytes do to the matrices.
    expect(relative(await logitsOf(fine.model), truth)).toBeLessThan(0.06);
    const coarse = await quantiseQdq(source, { calibration, inputBits: 8, session });
    expect(relative(await logitsOf(coarse.model), truth)).toBeLessThan(0.15);
    expect(distance(await logitsOf(source), truth)).toBe(0);
  });
});

describe('quantiseQdq', () => {
  const llama = () => readModel(testdata('optimum/llama/onnx/model.onnx'));

  it.each([
    ['optimum/llama/onnx/model.onnx', {}],
    ['genai-fp32/llama/model.onnx', { inputBits: 16 }],
    ['optimum/gpt2/onnx/model.onnx', { inputBits: 8, residualTolerance: Number.POSITIVE_INFINITY }],
    ['families/gpt2/fused/model.onnx', { inputBits: 8, stepRule: 'max' }],
    ['optimum/qwen2/onnx/model.onnx', { inputBits: 8, residualBits: 8, stepRule: 'percentile' }],
  ] as const)('%s with %j computes what plain integers do', async (file, options) => {
    const { model, residual, matrices } = await quantiseQdq(await readModel(testdata(file)), {
      calibration,
      ...options,
      session,
    });
    const found = await recompute(model, PROMPT);
    expect(found.sums).toBe(residual.sums);
    expect(found.products).toBe(matrices.length);
    expect(found.pairs).toBeGreaterThan(residual.sums);
    if ('residualTolerance' in options) expect(residual.stretches).toHaveLength(1);
  });

  it.each([
    ['optimum/llama/onnx/model.onnx', 0],
    ['optimum/llama/onnx/model.onnx', 1],
    ['genai-fp32/llama/model.onnx', 2],
    ['genai-fp32/llama/model.onnx', 'full'],
    ['families/gpt_neox/optimum/onnx/model.onnx', 0],
    ['families/gemma3_text/optimum/onnx/model.onnx', 1],
  ] as const)('%s with a group of three, bypass %s', async (file, bypass) => {
    const plan = {
      version: 1 as const,
      layers: analyze(await readModel(testdata(file))).layers.length,
      groups: [{ layers: [1, 2, 3], bypass }],
    };
    const { model: source } = rewriteBranches(await readModel(testdata(file)), plan);
    const names = sumsOf(source);
    const { model, residual } = await quantiseQdq(source, { calibration, residualTolerance: 1, session });
    expect(names.filter((name) => name.startsWith('/cqil/group')).length).toBeGreaterThan(2);
    // Parallel blocks add up attention and FFN first.
    expect(residual.sums).toBeGreaterThanOrEqual(names.length);
    expect((await holdSums(model, names, DataType.INT16)).size).toBe(residual.stretches.length);
    expect((await recompute(model, PROMPT)).sums).toBe(residual.sums);
    expect(structuralFaults(model)).toEqual(structuralFaults(source));
    expect(relative(await logitsOf(model), await logitsOf(source))).toBeLessThan(0.1);
    expect(model.metadata('cqil.plan')).toBe(source.metadata('cqil.plan'));
  });

  it('gives the same at every run, and decodes from its cache as from the whole prompt', async () => {
    const source = await llama();
    const first = await quantiseQdq(source, { calibration, session });
    const second = await quantiseQdq(source, { calibration, session });
    expect({ ...second, model: undefined }).toEqual({ ...first, model: undefined });
    expect(distance(await logitsOf(first.model), await logitsOf(second.model))).toBe(0);
    await using decoder = new DecoderSession(await openVariant(first.model, session));
    const start = await decoder.forward({ inputIds: [PROMPT.slice(0, -1)] });
    const next = await decoder.forward({ inputIds: [PROMPT.slice(-1)], cache: start.cache! });
    const whole = await decoder.forward({ inputIds: [PROMPT], returnCache: false });
    const size = next.logits.data.length;
    expect(relative(next.logits.data, whole.logits.data.slice(-size))).toBeLessThan(0.02);
  });

  it('turns the stream where that can be done, unless it is left out', async () => {
    const source = await readModel(testdata('genai-fp32/llama/model.onnx'));
    const turned = await quantiseQdq(source, { calibration, session });
    expect(turned.rotation).toEqual({ applied: true });
    const plain = await quantiseQdq(source, { calibration, rotate: 'off', session });
    expect(plain.rotation).toMatchObject({ applied: false });
    const truth = await logitsOf(source);
    for (const { model, residual } of [turned, plain]) {
      const floats = [...model.graph.initializers.values()].filter(
        ({ dataType, dims }) => dataType === DataType.FLOAT && dims.length > 1,
      );
      // Tables of the rotary embedding.
      expect(floats.every(({ name }) => /cos|sin/.test(name))).toBe(true);
      expect((await recompute(model, PROMPT)).sums).toBe(residual.sums);
      expect(relative(await logitsOf(model), truth)).toBeLessThan(0.06);
    }
  });

  it('cuts nothing of text that was not calibrated on, which is larger than all that was', async () => {
    const { graph } = await prepared(await llama(), { session, rotate: 'off' });
    const settings = qdqSettings({ session });
    const seen = await observe(graph.model, graph.values, [[PROMPT]], { session });
    const other = await observe(graph.model, graph.values, [windowsOf(4, 32)], { session });
    const { stretches, inputs } = choose(graph, seen, settings);
    let larger = 0;
    for (const { terms, output, place } of graph.residual.sums) {
      for (const value of [...terms, output]) {
        const { largest } = other.get(value)!;
        if (largest > seen.get(value)!.largest) larger += 1;
        expect(largest, value).toBeLessThanOrEqual(32767.5 * stretchAt(stretches, place).step);
      }
    }
    expect(larger).toBeGreaterThan(0);
    const finest = Math.max(...graph.residual.streams.map((value) => other.get(value)!.largest));
    expect(finest).toBeGreaterThan(
      Math.max(...graph.residual.streams.map((value) => seen.get(value)!.largest)),
    );
    for (const [value, { bits, step }] of inputs) {
      if (bits === 16) expect(other.get(value)!.largest, value).toBeLessThanOrEqual(32767.5 * step);
    }
  });

  it('gives 16 bits to inputs that err more than they may, and to no others', async () => {
    const source = await llama();
    const narrow = await quantiseQdq(source, { calibration, inputBits: 8, session });
    const errors = narrow.inputs.map(({ error }) => error).sort((a, b) => a - b);
    const inputTolerance = errors[errors.length >> 1] as number;
    const mixed = await quantiseQdq(source, { calibration, inputTolerance, session });
    for (const [i, { bits, name }] of mixed.inputs.entries()) {
      const { error, name: same } = narrow.inputs[i]!;
      expect(name).toBe(same);
      expect(bits, name).toBe(error > inputTolerance ? 16 : 8);
    }
    expect(new Set(mixed.inputs.map(({ bits }) => bits))).toEqual(new Set([8, 16]));
  });

  it('needs no newer operators where all codes have 8 bits, and raises them where some have 16', async () => {
    const source = await llama();
    const options = { calibration, inputBits: 8, session } as const;
    const byte = await quantiseQdq(source, { ...options, residualBits: 8 });
    expect(byte.model.opsets).toEqual(source.opsets);
    const wide = await quantiseQdq(source, options);
    expect(wide.model.opsets.get('')).toBe(21);
    expect(wide.model.rest.irVersion).toBe(10n);
    expect(source.opsets.get('')).toBe(18);
  });

  it('keeps the table that begins the stream in codes, and no float matrix that nothing reads', async () => {
    const source = await llama();
    const { model } = await quantiseQdq(source, { calibration, session });
    const floats = [...model.graph.initializers.values()].filter(
      ({ dataType, dims }) => dataType === DataType.FLOAT && dims.length > 1,
    );
    expect(floats).toEqual([]);
    const tables = [...model.graph.initializers.values()].filter(
      ({ dataType }) => dataType === DataType.INT16,
    );
    expect(tables.map(({ dims }) => dims.join()).sort()).toEqual(['', '512,64']);
  });

  it.each(['genai-int4/llama/model.onnx', 'optimum/llama/onnx/model_quantized.onnx'])(
    'takes matrices of %s for what they stand for',
    async (file) => {
      const source = await readModel(testdata(file));
      const { model, residual } = await quantiseQdq(source, { calibration, session });
      expect(residual.sums).toBe(12);
      expect(relative(await logitsOf(model), await logitsOf(source))).toBeLessThan(0.15);
    },
  );

  it.each([
    ['optimum/llama/onnx/model.onnx', []],
    ['optimum/gpt2/onnx/model.onnx', ['/transformer/wpe/Gather: its rows are not chosen by token']],
    [
      'optimum/llama/onnx/model_quantized.onnx',
      ['/model/embed_tokens/Gather: its table is stored in codes of another form'],
    ],
    [
      'families/gemma2/genai-fp32/model.onnx',
      ['/model/embed_tokens/Gather: its rows are not added to the stream as they are'],
    ],
  ] as const)('says what it leaves of %s', async (file, expected) => {
    const { left } = await quantiseQdq(await readModel(testdata(file)), { calibration, session });
    expect(left.map(({ name, reason }) => `${name}: ${reason}`)).toEqual(expected);
  });

  it('refuses what cannot be done', async () => {
    const source = await llama();
    const run = (model: Model, options: Partial<QdqOptions> = {}) =>
      quantiseQdq(model, { calibration, session, ...options });
    await expect(run(source, { calibration: [] })).rejects.toMatchObject({ code: 'QUANTISE_TEXT' });
    for (const options of [
      { inputTolerance: -1 },
      { residualTolerance: Number.NaN },
      { inputBits: 4 as never },
      { residualBits: 32 as never },
      { stepRule: 'least' as never },
      { rotate: 'on' as never },
      { batchTokens: 0 },
    ]) {
      await expect(run(source, options)).rejects.toMatchObject({ code: 'QUANTISE_OPTIONS' });
    }
    const half = await readModel(testdata('optimum/llama/onnx/model_fp16.onnx'));
    await expect(run(half)).rejects.toMatchObject({ code: 'QDQ_HALF' });
    const { model } = await run(source);
    await expect(run(model)).rejects.toMatchObject({ code: 'QDQ_ALREADY' });
    const post = await readModel(testdata('families/refused/opt_350m/model.onnx'));
    await expect(run(post)).rejects.toMatchObject({ code: 'ANATOMY_STREAM_BROKEN' });
    const vision = await readModel(testdata('families/refused/vit/model.onnx'));
    await expect(run(vision)).rejects.toMatchObject({ code: 'QUANTISE_NOT_DECODER' });
    const stopped = new AbortController();
    stopped.abort(new Error('enough'));
    await expect(run(source, { signal: stopped.signal })).rejects.toThrow('enough');
  });
});

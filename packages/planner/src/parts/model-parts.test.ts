import { existsSync } from 'node:fs';
import { type Plan, parsePlan } from '@cqil/core';
import { asFloat32, DecoderSession } from '@cqil/runtime-gpu';
import { describe, expect, it } from 'vitest';
import { analyze, type LayerAnatomy } from '../anatomy/index.js';
import { best, klDivergence, logSumExp } from '../evaluate/distribution.js';
import { type Model, type Node, readModel, Tensor } from '../onnx/index.js';
import { rewriteBranches } from '../rewrite/index.js';
import { openVariant } from '../variant/index.js';
import { testdata } from '../verify/test/fixtures.js';
import { atFullAccuracy } from '../verify/tolerance.js';
import { ModelParts, SharedInput, type StreamBatch } from './index.js';

const session = { threads: 1 };
const row = (length: number, step: number) => Array.from({ length }, (_, i) => (i * step + 7) % 250);
const ids = [row(12, 37), row(12, 91)];

/** Every fixture with how far its logits may lie apart: float16 rounds, and sums are made in another order. */
const FIXTURES: readonly (readonly [file: string, tolerance: number])[] = [
  ['optimum/llama/onnx/model.onnx', 1e-4],
  ['optimum/gpt2/onnx/model.onnx', 1e-4],
  ['optimum/qwen2/onnx/model.onnx', 1e-4],
  ['optimum/phi3/onnx/model.onnx', 1e-4],
  ['genai-fp32/llama/model.onnx', 1e-4],
  ['genai-fp32/qwen2/model.onnx', 1e-4],
  ['genai-int4/llama/model.onnx', 1e-4],
  ['optimum/llama/onnx/model_fp16.onnx', 2e-2],
  ['optimum/llama/onnx/model_quantized.onnx', 0.05],
  ['families/gpt_neox/optimum/onnx/model.onnx', 1e-4],
  ['families/phi/optimum/onnx/model.onnx', 1e-4],
  ['families/bloom/optimum/onnx/model.onnx', 1e-4],
  ['families/gemma2/genai-fp32/model.onnx', 1e-4],
  ['families/gemma3_text/optimum/onnx/model.onnx', 1e-4],
  ['families/gpt2/fused/model.onnx', 1e-4],
  ['families/granite/optimum/onnx/model.onnx', 1e-4],
  ['families/olmo2/optimum/onnx/model.onnx', 1e-4],
  ['families/opt/optimum/onnx/model.onnx', 1e-4],
  ['families/opt/optimum/onnx/model_q4f16.onnx', 2e-2],
  ['families/qwen3/optimum/onnx/model.onnx', 1e-4],
  ['families/qwen3/genai-int4/model.onnx', 1e-4],
];

async function wholeLogits(model: Model, tokens: readonly (readonly number[])[]): Promise<Float32Array> {
  const decoder = new DecoderSession(await openVariant(model, session));
  try {
    return (await decoder.forward({ inputIds: tokens, returnCache: false })).logits.data;
  } finally {
    await decoder.dispose();
  }
}

function distance(a: Float32Array, b: Float32Array): number {
  if (a.length !== b.length) return Number.POSITIVE_INFINITY;
  return a.reduce((worst, value, i) => Math.max(worst, Math.abs(value - b[i]!)), 0);
}

function plans(layers: number): Plan[] {
  const make = (groups: readonly object[]) => parsePlan({ version: 1, layers, groups });
  return [
    make([]),
    make([{ layers: [1, 2], bypass: 0 }]),
    make([{ layers: [0, 1, 2, 3], bypass: 1 }]),
    make([
      { layers: [0, 1], bypass: 1 },
      { layers: [2, 3], bypass: 'full' },
    ]),
    make([{ layers: [1, 2, 3], bypass: 2 }]),
  ];
}

describe.each(FIXTURES)('%s in parts', (file, tolerance) => {
  it('computes what the whole and the rewritten graphs compute', async () => {
    const model = atFullAccuracy(await readModel(testdata(file)));
    const anatomy = analyze(model);
    const parts = await ModelParts.open(model, anatomy, { session });
    try {
      const x = await parts.embed(ids);
      expect(x.dims.slice(0, 2)).toEqual([2, 12]);
      const found: Float32Array[] = [];
      for (const plan of plans(anatomy.layers.length)) {
        const logits = await parts.logits(await parts.run(plan, x));
        expect(logits.dims.slice(0, 2)).toEqual([2, 12]);
        found.push(asFloat32(logits));
        expect(
          distance(found.at(-1)!, await wholeLogits(rewriteBranches(model, plan).model, ids)),
        ).toBeLessThan(tolerance);
      }
      // The plans differ from the original by more than the tolerance, so that the comparison says something.
      for (const logits of found.slice(1)) expect(distance(logits, found[0]!)).toBeGreaterThan(2 * tolerance);
    } finally {
      await parts.dispose();
    }
  });
});

it('all those fixtures exist', () => {
  expect(FIXTURES.filter(([file]) => !existsSync(testdata(file)))).toEqual([]);
});

describe('ModelParts', () => {
  it('scores in the graph as JavaScript does, in chunks of positions and of models', async () => {
    const ids = [row(40, 37), row(40, 91)];
    const model = await readModel(testdata('optimum/llama/onnx/model.onnx'));
    await using parts = await ModelParts.open(model, analyze(model), { session });
    const x = await parts.embed(ids);
    const [none, ...grouped] = plans(parts.layers.length);
    const reference = await parts.run(none!, x);
    const streams = await Promise.all(grouped.map((plan) => parts.run(plan, x)));
    const others = [...streams, ...streams, ...streams];
    const scores = await parts.score(reference, others, ids);
    const logits = asFloat32(await parts.logits(reference));
    const size = logits.length / 80;
    let agreed = 0;
    for (const [k, stream] of others.entries()) {
      const mine = asFloat32(await parts.logits(stream));
      for (const [b, tokens] of ids.entries()) {
        for (let i = 1; i < tokens.length; i++) {
          const start = (b * 40 + i - 1) * size;
          const at = b * 39 + i - 1;
          const target = tokens[i]!;
          const loss = (values: Float32Array) => logSumExp(values, start, size) - values[start + target]!;
          expect(scores.reference.loss[at]).toBeCloseTo(loss(logits), 4);
          expect(scores.others[k]!.loss[at]).toBeCloseTo(loss(mine), 4);
          expect(scores.others[k]!.kl[at]).toBeCloseTo(klDivergence(logits, mine, start, size), 5);
          const same = best(logits, start, size).index === best(mine, start, size).index;
          expect(scores.others[k]!.agrees[at]).toBe(same ? 1 : 0);
          agreed += same ? 1 : 0;
        }
      }
    }
    expect(agreed).toBeGreaterThan(0);
    expect(agreed).toBeLessThan(others.length * 78);
    // Alone, the reference has the same losses; compared with itself, no divergence.
    const alone = await parts.score(reference, [], ids);
    expect(alone.others).toEqual([]);
    expect(distance(alone.reference.loss, scores.reference.loss)).toBeLessThan(1e-5);
    const [itself] = (await parts.score(reference, [reference], ids)).others;
    expect(Math.max(...itself!.kl)).toBe(0);
    expect(Math.min(...itself!.agrees)).toBe(1);
  });

  const tapsOf = ({ attention, ffn }: LayerAnatomy) =>
    [
      attention?.normOutput,
      ffn?.normOutput,
      ...(ffn?.nodes ?? []).filter(isMatMul).map(({ input }) => input[0]),
    ]
      .filter((name) => name !== undefined)
      .filter((name, i, all) => all.indexOf(name) === i);

  it.each(['optimum/llama/onnx/model.onnx', 'genai-fp32/llama/model.onnx'])(
    '%s: hands out inner values, those asked for',
    async (file) => {
      const model = await readModel(testdata(file));
      const anatomy = analyze(model);
      await using parts = await ModelParts.open(model, anatomy, { session, taps: tapsOf });
      await using plain = await ModelParts.open(model, anatomy, { session });
      const layer = anatomy.layers[2]!;
      const x = await plain.run(plans(anatomy.layers.length)[0]!, await plain.embed(ids));
      const [ffnNorm, inner] = tapsOf(layer).slice(1) as [string, string];
      expect(tapsOf(layer)).toHaveLength(3);
      const asked = await parts.ffn(2, x, { taps: [ffnNorm, inner] });
      expect(Object.keys(asked.taps)).toEqual([ffnNorm, inner]);
      expect(asked.contribution).toEqual((await plain.ffn(2, x)).contribution);
      // The norm's output is the input, each row scaled to one size: its gain is the same for all rows.
      const normed = asFloat32(asked.taps[ffnNorm]!);
      const [, , hidden] = x.dims;
      const gain = (r: number) => {
        const values = x.data.subarray(r * hidden, (r + 1) * hidden);
        const size = Math.sqrt(values.reduce((sum, value) => sum + value * value, 0) / hidden);
        return normed.subarray(r * hidden, (r + 1) * hidden).map((value, i) => (value * size) / values[i]!);
      };
      expect(distance(gain(0), gain(5))).toBeLessThan(1e-3);
      // What the down projection reads gives the contribution when its weights are applied to it.
      const weights = await downProjection(model, layer, inner);
      const values = asFloat32(asked.taps[inner]!);
      const width = values.length / 24;
      const contribution = Float32Array.from({ length: 24 * hidden }, (_, at) => {
        const [r, h] = [Math.floor(at / hidden), at % hidden];
        let sum = 0;
        for (let i = 0; i < width; i++) sum += values[r * width + i]! * weights[i * hidden + h]!;
        return sum;
      });
      expect(distance(contribution, asked.contribution.data)).toBeLessThan(1e-4);
      await expect(parts.attention(2, x, { taps: [inner] })).rejects.toMatchObject({ code: 'PARTS_TAP' });
    },
  );

  it('refuses taps that a layer does not compute', async () => {
    const model = await readModel(testdata('optimum/llama/onnx/model.onnx'));
    const anatomy = analyze(model);
    for (const name of ['nothing', anatomy.layers[3]!.ffn!.normOutput!]) {
      await expect(
        ModelParts.open(model, anatomy, { session, taps: ({ index }) => (index === 2 ? [name] : []) }),
      ).rejects.toMatchObject({ code: 'PARTS_TAP', message: expect.stringContaining('Layer 2') });
    }
  });

  it('computes one layer with the weights of another model', async () => {
    const file = testdata('genai-fp32/llama/model.onnx');
    const model = await readModel(file);
    const changed = await withHalvedDownProjection(model, 2);
    await using parts = await ModelParts.open(model, analyze(model), { session });
    const plan = plans(parts.layers.length)[3]!;
    const x = await parts.embed(ids);
    const before = asFloat32(await parts.logits(await parts.run(plan, x)));
    await parts.replace(2, changed);
    const after = asFloat32(await parts.logits(await parts.run(plan, x)));
    expect(distance(after, await wholeLogits(rewriteBranches(changed, plan).model, ids))).toBeLessThan(1e-4);
    expect(distance(after, before)).toBeGreaterThan(1e-2);
    await parts.replace(2, model);
    expect(asFloat32(await parts.logits(await parts.run(plan, x)))).toEqual(before);
  });

  it('refuses a model whose first layer reads token ids', async () => {
    // Without a norm before them, the first projections read the quantised embedding, not the stream.
    const model = await readModel(testdata('families/olmo2/optimum/onnx/model_quantized.onnx'));
    await expect(ModelParts.open(model, analyze(model), { session })).rejects.toMatchObject({
      code: 'PARTS_READS_TOKENS',
      message: expect.stringContaining('layer 0, attention'),
    });
  });

  it('computes the end of a plan from the state before a step', async () => {
    const model = await readModel(testdata('optimum/gpt2/onnx/model.onnx'));
    await using parts = await ModelParts.open(model, analyze(model), { session });
    const plan = plans(parts.layers.length)[4]!;
    const x = await parts.embed(ids);
    const whole = await parts.run(plan, x);
    const middle = await parts.group([1, 2, 3], 2, await parts.layer(0, x));
    expect(await parts.run(plan, middle, { from: 4 })).toEqual(whole);
    expect(await parts.run(plan, whole, { from: parts.layers.length })).toBe(whole);
    await expect(parts.run(plan, x, { from: 2 })).rejects.toMatchObject({ code: 'PARTS_STEP' });
    await expect(parts.run({ ...plan, layers: 3 }, x)).rejects.toMatchObject({ code: 'PLAN_LAYER_COUNT' });
  });

  it('shares what groups with one input have in common', async () => {
    const model = await readModel(testdata('optimum/llama/onnx/model.onnx'));
    await using parts = await ModelParts.open(model, analyze(model), { session });
    const ran: string[] = [];
    const counting = {
      layers: parts.layers,
      contributionOfAttention: (j: number, x: StreamBatch) => {
        ran.push(`a${j}`);
        return parts.contributionOfAttention(j, x);
      },
      contributionOfFfn: (j: number, f: StreamBatch) => {
        ran.push(`m${j}`);
        return parts.contributionOfFfn(j, f);
      },
    };
    const x = await parts.embed(ids);
    const shared = new SharedInput(counting, x);
    for (const [layers, bypass] of [
      [[1, 2], 0],
      [[1, 2], 1],
      [[1, 2], 'full'],
      [[1, 2, 3], 0],
      [[1, 2, 3], 1],
    ] as const) {
      expect((await shared.group(layers, bypass)).output).toEqual(await parts.group(layers, bypass, x));
    }
    // m1 from x + a1 and from x + a1 + a2; m2 from x + a2 and from x + a1 + a2; m3 from x + a3 and from x + a2 + a3.
    expect(ran.sort()).toEqual(['a1', 'a2', 'a3', 'm1', 'm1', 'm2', 'm2', 'm3', 'm3']);
  });

  it('names the layer whose activations are no numbers', async () => {
    const model = await readModel(testdata('genai-fp32/llama/model.onnx'));
    const broken = await withHalvedDownProjection(model, 3, Number.POSITIVE_INFINITY);
    await using parts = await ModelParts.open(broken, analyze(broken), { session });
    const x = await parts.embed(ids);
    await expect(parts.run(plans(parts.layers.length)[0]!, x)).rejects.toMatchObject({
      code: 'ACTIVATION_NOT_FINITE',
      message: expect.stringContaining('layer 3, FFN'),
    });
  });

  it('stops within one part, refuses what it cannot run, and is disposed once', async () => {
    const model = await readModel(testdata('families/phi/optimum/onnx/model.onnx'));
    const parts = await ModelParts.open(model, analyze(model), { session });
    const x = await parts.embed(ids);
    const controller = new AbortController();
    const running = parts.run(plans(parts.layers.length)[0]!, x, { signal: controller.signal });
    controller.abort(new Error('enough'));
    await expect(running).rejects.toThrow('enough');
    await expect(parts.embed([[1, 2], [1]])).rejects.toMatchObject({ code: 'PARTS_SEQUENCES' });
    await expect(parts.embed([])).rejects.toMatchObject({ code: 'PARTS_SEQUENCES' });
    await expect(parts.ffn(0, x)).rejects.toMatchObject({ code: 'PARTS_NO_BRANCH' });
    await expect(parts.layer(99, x)).rejects.toMatchObject({ code: 'PARTS_NO_BRANCH' });
    await parts.dispose();
    await parts.dispose();
    await expect(parts.layer(0, x)).rejects.toMatchObject({ code: 'SESSION_DISPOSED' });
  });
});

function isMatMul(node: Node): boolean {
  return node.opType === 'MatMul' && /down_proj/.test(node.name);
}

/** The weights `[inner, hidden]` that read `value`. */
async function downProjection(model: Model, layer: LayerAnatomy, value: string): Promise<Float32Array> {
  const node = layer.ffn!.nodes.find(({ input }) => input[0] === value)!;
  const tensor = model.graph.initializers.get(node.input[1]!)!;
  return new Float32Array(Uint8Array.from(await tensor.bytes()).buffer);
}

async function withHalvedDownProjection(model: Model, layer: number, factor = 0.5): Promise<Model> {
  const changed = model.clone();
  const [name, tensor] = [...model.graph.initializers].find(([key]) =>
    key.includes(`layers.${layer}.mlp.down_proj`),
  )!;
  const values = new Float32Array(Uint8Array.from(await tensor.bytes()).buffer).map(
    (value) => value * factor,
  );
  changed.graph.initializers.set(name, Tensor.create(name, tensor.dataType, tensor.dims, values));
  return changed;
}

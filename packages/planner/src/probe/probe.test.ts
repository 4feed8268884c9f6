import { cp, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { asFloat32 } from '@cqil/runtime-gpu';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { analyze } from '../anatomy/index.js';
import { readModel } from '../onnx/index.js';
import { locateModel } from '../source/index.js';
import { withVariant } from '../variant/index.js';
import { unfuseSkipNorms } from '../verify/unfuse.js';
import { formatProbe } from './document.js';
import { probe } from './probe.js';
import { runSequence } from './run.js';
import { streamPoints, tappedModel } from './taps.js';

const testdata = (file: string) => fileURLToPath(new URL(`../../../../testdata/${file}`, import.meta.url));
const sequence = (length: number, step: number) => Array.from({ length }, (_, i) => (i * step + 7) % 500);
const ids = [sequence(40, 37), sequence(30, 91), sequence(24, 13)];
const session = { threads: 1 };

function worst(a: readonly (readonly number[])[], b: readonly (readonly number[])[]): number {
  return Math.max(...a.flatMap((row, i) => row.map((value, j) => Math.abs(value - b[i]![j]!))));
}

/** The stream's states, read off a model whose graph is changed by hand. */
async function statesOf(file: string, tokens: readonly number[], without?: number): Promise<Float32Array[]> {
  const model = unfuseSkipNorms(await readModel(testdata(file)));
  const anatomy = analyze(model);
  const points = streamPoints(anatomy);
  const tapped = tappedModel(model, anatomy);
  if (without !== undefined) {
    const { input, output } = anatomy.layers[without]!;
    for (const node of tapped.graph.nodes) {
      node.input = node.input.map((name) => (name === output ? input : name));
    }
  }
  return withVariant(tapped, session, async (opened) => {
    const results = await runSequence(opened, tokens, points);
    return points.map((name) => asFloat32(results[name]!));
  });
}

describe('probe', () => {
  it.each(['optimum/llama/onnx/model.onnx', 'optimum/gpt2/onnx/model.onnx', 'genai-fp32/qwen2/model.onnx'])(
    '%s: measures the inputs of the layers',
    async (file) => {
      const source = await locateModel(testdata(file));
      const result = await probe(source, { ids: [ids[0]!], skipFirst: 2, session });
      const states = await statesOf(file, ids[0]!);
      const layers = states.length - 1;
      expect(result).toMatchObject({ layers, hidden: states[0]!.length / 40, tokens: 38 });
      // Block influence by its definition, token by token.
      for (let layer = 0; layer < layers; layer++) {
        let sum = 0;
        for (let token = 2; token < 40; token++) {
          const row = (point: number) =>
            states[point]!.subarray(token * result.hidden, (token + 1) * result.hidden);
          const dot = (a: Float32Array, b: Float32Array) => a.reduce((s, value, i) => s + value * b[i]!, 0);
          const [x, y] = [row(layer), row(layer + 1)];
          sum += dot(x, y) / Math.sqrt(dot(x, x) * dot(y, y));
        }
        expect(result.metrics.blockInfluence[layer]).toBeCloseTo(1 - sum / 38, 5);
      }
    },
  );

  it('finds the same in plain and in fused graphs of the same weights', async () => {
    const plain = await probe(await locateModel(testdata('optimum/llama/onnx/model.onnx')), { ids, session });
    const fused = await probe(await locateModel(testdata('genai-fp32/llama')), { ids, session });
    expect(fused.tokens).toBe(plain.tokens);
    for (const name of ['cosine', 'angular', 'relativeL2', 'cka'] as const) {
      expect(worst(fused.metrics[name]!, plain.metrics[name]!)).toBeLessThan(1e-4);
    }
    expect(fused.text).toEqual(plain.text);
  });

  it.each([
    'optimum/llama/onnx/model_fp16.onnx',
    'optimum/llama/onnx/model_quantized.onnx',
    'genai-int4/llama/model.onnx',
  ])('%s: is near the same model in fp32', async (file) => {
    const exact = await probe(await locateModel(testdata('optimum/llama/onnx/model.onnx')), { ids, session });
    const result = await probe(await locateModel(testdata(file)), { ids, session });
    expect(worst(result.metrics.cosine, exact.metrics.cosine)).toBeLessThan(0.1);
    expect(result.layers).toBe(exact.layers);
  });

  it('gives the same bytes again', async () => {
    const source = await locateModel(testdata('genai-fp32/llama'));
    const first = formatProbe(await probe(source, { ids, session }));
    expect(formatProbe(await probe(source, { ids, session }))).toBe(first);
  });

  it.each(['optimum/llama/onnx/model.onnx', 'genai-fp32/llama/model.onnx'])(
    '%s: measures what a layer does without an earlier one',
    async (file) => {
      const source = await locateModel(testdata(file));
      const { blockDependency, layers, hidden } = await probe(source, {
        ids: [ids[1]!],
        blockDependency: { span: 3 },
        session,
      });
      expect(blockDependency!.distance.map((row) => row.length)).toEqual([3, 3, 3, 2, 1, 0]);
      expect(layers).toBe(6);
      const whole = await statesOf(file, ids[1]!);
      const without = await statesOf(file, ids[1]!, 1);
      for (let j = 2; j <= 4; j++) {
        // Without layer 1, layer 2 reads what layer 1 read.
        const before = j === 2 ? without[1]! : without[j]!;
        let sum = 0;
        for (let token = 1; token < 30; token++) {
          let [ab, aa, bb] = [0, 0, 0];
          for (let i = token * hidden; i < (token + 1) * hidden; i++) {
            const a = whole[j + 1]![i]! - whole[j]![i]!;
            const b = without[j + 1]![i]! - before[i]!;
            ab += a * b;
            aa += a * a;
            bb += b * b;
          }
          sum += 1 - ab / Math.sqrt(aa * bb);
        }
        expect(blockDependency!.distance[1]![j - 2]).toBeCloseTo(sum / 29, 4);
      }
    },
  );

  it('stops when it is aborted, and reports progress', async () => {
    const source = await locateModel(testdata('genai-fp32/llama'));
    const controller = new AbortController();
    const seen: number[] = [];
    const run = probe(source, {
      ids,
      session,
      signal: controller.signal,
      onProgress: ({ done, total }) => {
        expect(total).toBe(94);
        seen.push(done);
        if (done > 50) controller.abort(new Error('enough'));
      },
    });
    await expect(run).rejects.toThrow('enough');
    expect(seen).toEqual([40, 70]);
  });

  it.each([
    [{ window: 1 }, /"window"/],
    [{ skipFirst: 256 }, /"skipFirst"/],
    [{ tokens: 0 }, /"tokens"/],
    [{ texts: [] }, /"texts"/],
    [{ ids: [] }, /"ids"/],
  ])('refuses %o', async (options, message) => {
    const source = await locateModel(testdata('genai-fp32/llama'));
    await expect(probe(source, { session, ...options })).rejects.toThrow(message);
  });
});

describe('probe on text', () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(path.join(tmpdir(), 'probe-test-'));
    await cp(testdata('genai-fp32/llama'), folder, { recursive: true });
    const letters = 'abcdefghijklmnopqrstuvwxyz.Ġ'.split('');
    await writeFile(
      path.join(folder, 'tokenizer.json'),
      JSON.stringify({
        version: '1.0',
        added_tokens: [],
        normalizer: null,
        pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true },
        post_processor: null,
        decoder: { type: 'ByteLevel', add_prefix_space: true, trim_offsets: true, use_regex: true },
        model: {
          type: 'BPE',
          vocab: Object.fromEntries(letters.map((letter, id) => [letter, id])),
          merges: [],
        },
      }),
    );
    await writeFile(
      path.join(folder, 'one.txt'),
      'it was the best of times. it was the worst of times. '.repeat(40),
    );
    await writeFile(path.join(folder, 'two.txt'), 'call me any name. '.repeat(3));
  });
  afterAll(() => rm(folder, { recursive: true }));

  it('takes its share of each text and says where it came from', async () => {
    const before = await readdir(folder);
    const result = await probe(await locateModel(folder), {
      texts: ['one.txt', 'two.txt'],
      cwd: folder,
      tokens: 120,
      window: 24,
      session,
    });
    expect(result.text).toMatchObject([
      { kind: 'file', spec: 'one.txt', tokens: 60 },
      { kind: 'file', spec: 'two.txt' },
    ]);
    expect(result.text[1]!.tokens).toBeGreaterThan(40);
    expect(result.text[1]!.tokens).toBeLessThanOrEqual(60);
    expect(await readdir(folder)).toEqual(before);
  });

  it('has the model write the text itself', async () => {
    const source = await locateModel(folder);
    const run = (seed: number) => probe(source, { tokens: 96, window: 48, seed, session });
    const result = await run(1);
    expect(result.text).toMatchObject([{ kind: 'self', spec: 'self', tokens: 96 }]);
    expect(await run(1)).toEqual(result);
    expect((await run(2)).text[0]!.sha256).not.toBe(result.text[0]!.sha256);
  });
});

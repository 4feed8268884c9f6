import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { DecoderSession, seededRandom } from '@cqil/runtime-gpu';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readModel, Tensor } from '../onnx/index.js';
import { kindResultSchema } from '../optimize/document.js';
import { openVariant } from '../variant/index.js';
import { compare } from './compare.js';
import { agreement, continueGreedily, generationSamples, promptsFrom } from './greedy.js';
import { evaluateKinds, evaluateOriginal } from './kinds.js';
import { type Predictor, Reference } from './reference.js';
import type { TextSet } from './text-sets.js';
import type { Tokenizer } from './tokenizer.js';

const testdata = (file: string) => fileURLToPath(new URL(`../../../../testdata/${file}`, import.meta.url));
const { ids } = JSON.parse(readFileSync(testdata('golden/tiny-llama.json'), 'utf8')) as { ids: number[] };

const WINDOW = 24;
const random = seededRandom(3);
const rows = (count: number) =>
  Array.from({ length: count }, () => [
    ...ids.slice(0, 12),
    ...Array.from({ length: WINDOW - 12 }, () => Math.floor(random() * 512)),
  ]);
const set: TextSet = {
  name: 'evaluation',
  window: WINDOW,
  tokens: 17 * WINDOW,
  sha256: '',
  texts: [],
  kinds: [
    { kind: 'long', windows: rows(14) },
    { kind: 'short', windows: rows(3) },
  ],
};

/** Counts the runs of a model. */
function counted(decoder: DecoderSession): Predictor & { runs: number } {
  const counter = {
    runs: 0,
    forward: (request: Parameters<DecoderSession['forward']>[0]) => {
      counter.runs += 1;
      return decoder.forward(request);
    },
  };
  return counter;
}

describe('judging models by kinds of text', () => {
  let original: DecoderSession;
  let damaged: DecoderSession;
  beforeAll(async () => {
    const model = await readModel(testdata('genai-fp32/llama/model.onnx'));
    original = await DecoderSession.open(testdata('genai-fp32/llama/model.onnx'), { threads: 1 });
    const variant = model.clone();
    for (const [name, tensor] of model.graph.initializers) {
      if (!/layers\.[34]\..*down_proj/.test(name)) continue;
      variant.graph.initializers.set(
        name,
        Tensor.create(name, tensor.dataType, tensor.dims, new Uint8Array(tensor.byteLength)),
      );
    }
    damaged = new DecoderSession(await openVariant(variant, { threads: 1 }));
  });
  afterAll(async () => {
    await original.dispose();
    await damaged.dispose();
  });

  it('gives what compare gives, kind by kind', async () => {
    const got = await evaluateKinds(original, damaged, set);
    expect(got.kinds.map(({ kind }) => kind)).toEqual(['long', 'short']);
    for (const [i, { windows }] of set.kinds.entries()) {
      const exact = await compare(original, damaged, windows.flat(), { window: WINDOW });
      const kind = got.kinds[i]!;
      expect(() => kindResultSchema.parse(kind)).not.toThrow();
      expect(kind.tokens).toBe(exact.tokens);
      expect(kind.perplexity).toBeCloseTo(exact.b.perplexity, 4);
      expect(kind.excess).toBeCloseTo(exact.ratio - 1, 7);
      expect(exact.kl).toBeGreaterThan(0.005);
      expect(Math.abs(kind.kl / exact.kl - 1)).toBeLessThan(1e-3);
      expect(kind.top1).toBe(exact.top1Agreement);
      expect(kind.interval === undefined).toBe(i === 1);
      if (i === 1) continue;
      expect(kind.interval!.low).toBeCloseTo(exact.b.interval!.low, 4);
      expect(kind.interval!.high).toBeCloseTo(exact.b.interval!.high, 4);
      expect(kind.excessInterval!.low).toBeCloseTo(exact.ratioInterval!.low - 1, 7);
      expect(kind.excessInterval!.high).toBeCloseTo(exact.ratioInterval!.high - 1, 7);
      expect(Math.abs(kind.klInterval!.low / exact.klInterval!.low - 1)).toBeLessThan(1e-3);
      expect(Math.abs(kind.klInterval!.high / exact.klInterval!.high - 1)).toBeLessThan(1e-3);
    }
    const [a, b] = got.kinds.map(({ excess }) => 1 + excess);
    expect(1 + got.excess).toBeCloseTo(Math.sqrt(a! * b!), 10);
    expect(got.kl).toBeCloseTo((got.kinds[0]!.kl + got.kinds[1]!.kl) / 2, 12);
  });

  it('runs the original once for all candidates, and again only beyond the memory given', async () => {
    const model = counted(original);
    const reference = new Reference(model);
    const first = await evaluateKinds(reference, damaged, set);
    expect(model.runs).toBe(17);
    expect(await evaluateKinds(reference, damaged, set)).toEqual(first);
    const own = await evaluateOriginal(reference, set);
    expect(model.runs).toBe(17);
    expect(reference.bytes).toBeGreaterThan(0);

    const half = new Reference(model, { maxBytes: reference.bytes / 2 });
    model.runs = 0;
    expect(await evaluateKinds(half, damaged, set)).toEqual(first);
    expect(await evaluateKinds(half, damaged, set)).toEqual(first);
    expect(half.bytes).toBeLessThanOrEqual(reference.bytes / 2);
    expect(model.runs).toBeGreaterThan(17);
    expect(model.runs).toBeLessThan(34);

    reference.clear();
    expect(reference.bytes).toBe(0);
    expect(await evaluateOriginal(reference, set)).toEqual(own);
  });

  it('finds the original equal to itself', async () => {
    const own = await evaluateOriginal(original, set);
    const same = await evaluateKinds(original, original, set);
    expect(own).toMatchObject({ excess: 0, kl: 0 });
    expect(same.excess).toBe(0);
    expect(same.kl).toBeLessThan(1e-6);
    expect(same.kinds.map(({ kl: _kl, klInterval: _interval, ...rest }) => rest)).toEqual(
      own.kinds.map(({ kl: _kl, klInterval: _interval, ...rest }) => rest),
    );
    expect(own.kinds[0]).toMatchObject({ excess: 0, kl: 0, top1: 1, tokens: 14 * (WINDOW - 1) });
  });

  it('refuses a model of another vocabulary, reports progress, stops when aborted', async () => {
    const other: Predictor = {
      forward: async (request) => {
        const result = await original.forward(request);
        const data = result.logits.data.subarray(0, request.inputIds[0]!.length * 100);
        return { ...result, logits: { dims: [1, request.inputIds[0]!.length, 100], data } };
      },
    };
    await expect(evaluateKinds(original, other, set)).rejects.toMatchObject({ code: 'VOCABULARY_MISMATCH' });
    const controller = new AbortController();
    const seen: number[] = [];
    const run = evaluateKinds(original, damaged, set, {
      signal: controller.signal,
      onProgress: ({ done, total }) => {
        expect(total).toBe(17 * (WINDOW - 1));
        if (seen.push(done) === 3) controller.abort(new Error('enough'));
      },
    });
    await expect(run).rejects.toThrow('enough');
    expect(seen).toEqual([23, 46, 69]);
  });

  it('takes prompts from all kinds in turn', () => {
    const prompts = promptsFrom(set, { count: 5, length: 6 });
    const [long, short] = set.kinds.map(({ windows }) => windows.map((ids) => ids.slice(0, 6)));
    expect(prompts).toEqual([long![0], short![0], long![4], short![1], long![9]]);
    expect(promptsFrom(set, { count: 100, length: 6 })).toHaveLength(17);
  });

  it('counts how long greedy texts stay the same', async () => {
    const prompts = [ids.slice(0, 8), ids.slice(8, 16), ids.slice(4, 12)];
    const seen: number[] = [];
    const texts = await continueGreedily(original, prompts, {
      length: 10,
      onProgress: ({ done }) => seen.push(done),
    });
    expect(seen).toEqual([10, 20, 30]);
    expect(texts.map((text) => text.length)).toEqual([10, 10, 10]);
    const again = await continueGreedily(original, prompts, { length: 10 });
    expect(agreement(texts, again)).toEqual({ prompts: 3, length: 10, agreed: 10 });
    const others = await continueGreedily(damaged, prompts, { length: 10 });
    expect(agreement(texts, others).agreed).toBeLessThan(10);

    expect(
      agreement(
        [
          [1, 2, 3],
          [4, 5, 6],
        ],
        [
          [1, 2, 9],
          [0, 5, 6],
        ],
      ),
    ).toEqual({ prompts: 2, length: 3, agreed: 1 });
    const tokenizer: Tokenizer = {
      encode: () => [],
      decode: (tokens) => tokens.join(' '),
      bosId: undefined,
      eosId: 7,
      size: 512,
    };
    expect(generationSamples(tokenizer, [[1]], [[2, 3, 7, 4]], [[2, 4, 4, 4]])).toEqual([
      { prompt: '1', original: '2 3', planned: '2 4 4 4' },
    ]);
  });
});

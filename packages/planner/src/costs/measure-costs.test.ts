import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { blockDependency, type Plan, type Progress, parsePlan, tokenMask } from '@cqil/core';
import { DecoderSession } from '@cqil/runtime-gpu';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { analyze } from '../anatomy/index.js';
import { type Comparison, compare } from '../evaluate/index.js';
import { type Model, readModel, Tensor } from '../onnx/index.js';
import { ModelParts } from '../parts/index.js';
import { rewriteBranches } from '../rewrite/index.js';
import { openVariant } from '../variant/index.js';
import { testdata } from '../verify/test/fixtures.js';
import { atFullAccuracy } from '../verify/tolerance.js';
import {
  type CostsOptions,
  type CostsResult,
  type CostText,
  formatCosts,
  measureCosts,
  planCost,
  planCosts,
  ReferenceStreams,
  readCosts,
  writeCosts,
} from './index.js';

const session = { threads: 1 };
const llama = 'optimum/llama/onnx/model.onnx';
const window = (length: number, step: number) => Array.from({ length }, (_, i) => (i * step + 7) % 250);
const text = (kind: string, windows: readonly (readonly number[])[]): CostText => ({
  kind,
  windows,
  sources: [{ spec: `${kind}.txt`, sha256: 'of the text' }],
});
const texts = [
  text('prose', [window(12, 37), window(12, 91), window(12, 11)]),
  text('code', [window(12, 13), window(12, 55)]),
];
const model = { graph: 'model.onnx', dtype: 'fp32', sha256: 'of the model' };
const base: CostsOptions = {
  model,
  halving: false,
  positions: 24,
  groupSizes: [2, 3],
  bypasses: [0, 1, 'full'],
};

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'costs-test-'));
});
afterEach(() => rm(folder, { recursive: true }));

async function withParts<T>(file: string, use: (parts: ModelParts, model: Model) => Promise<T>): Promise<T> {
  const opened = atFullAccuracy(await readModel(testdata(file)));
  await using parts = await ModelParts.open(opened, analyze(opened), { session });
  return await use(parts, opened);
}

/** The whole models run, their logits compared in JavaScript. */
async function byComparing(original: Model, plan: Plan, of: readonly (readonly number[])[]) {
  const a = new DecoderSession(await openVariant(original, session));
  const b = new DecoderSession(await openVariant(rewriteBranches(original, plan).model, session));
  try {
    const found: Comparison[] = [];
    for (const ids of of) found.push(await compare(a, b, ids));
    const tokens = found.reduce((sum, part) => sum + part.tokens, 0);
    const mean = (value: (part: Comparison) => number) =>
      found.reduce((sum, part) => sum + value(part) * part.tokens, 0) / tokens;
    return {
      tokens,
      kl: mean(({ kl }) => kl),
      crossEntropy: mean((part) => part.b.nll - part.a.nll),
      original: mean((part) => part.a.nll),
      top1: mean(({ top1Agreement }) => top1Agreement),
    };
  } finally {
    await a.dispose();
    await b.dispose();
  }
}

const single = (layers: readonly number[], bypass: number | 'full', count = 6) =>
  parsePlan({ version: 1, layers: count, groups: [{ layers, bypass }] });

describe('measureCosts', () => {
  it.each([
    llama,
    'optimum/gpt2/onnx/model.onnx',
    'genai-fp32/qwen2/model.onnx',
    'genai-int4/llama/model.onnx',
  ])('%s: measures what comparing the rewritten graphs gives', async (file) => {
    await withParts(file, async (parts, original) => {
      const count = parts.layers.length;
      const result = await measureCosts(parts, texts, base);
      expect(result.candidates).toHaveLength((count - 1) * 3 + (count - 2) * 3);
      for (const wanted of [0, 4, 8, result.candidates.length - 1]) {
        const found = result.candidates[wanted]!;
        const plan = single(found.layers, found.bypass, count);
        const all = await byComparing(
          original,
          plan,
          texts.flatMap(({ windows }) => windows),
        );
        expect(found).toMatchObject({ tokens: 55, coarse: false });
        expect(found.kl).toBeCloseTo(all.kl, 5);
        expect(found.crossEntropy).toBeCloseTo(all.crossEntropy, 5);
        expect(found.top1).toBeCloseTo(all.top1, 6);
        expect(found.kl).toBeGreaterThan(1e-4);
        expect(found.kinds.map(({ kind, tokens }) => [kind, tokens])).toEqual([
          ['prose', 33],
          ['code', 22],
        ]);
        const code = await byComparing(original, plan, texts[1]!.windows);
        expect(found.kinds[1]!.kl).toBeCloseTo(code.kl, 5);
        expect(found.kinds[1]!.crossEntropy).toBeCloseTo(code.crossEntropy, 5);
        expect(result.original[1]).toMatchObject({ kind: 'code', tokens: 22 });
        expect(result.original[1]!.crossEntropy).toBeCloseTo(code.original, 5);
      }
    });
  });

  it('measures parallel and half-precision models', async () => {
    await withParts('families/phi/optimum/onnx/model.onnx', async (parts, original) => {
      const { candidates } = await measureCosts(parts, texts, { ...base, groupSizes: [2] });
      expect(new Set(candidates.map(({ bypass }) => bypass))).toEqual(new Set([0]));
      const plan = single([1, 2], 0, parts.layers.length);
      const all = await byComparing(
        original,
        plan,
        texts.flatMap(({ windows }) => windows),
      );
      expect(candidates[1]!.kl).toBeCloseTo(all.kl, 5);
    });
    await withParts('optimum/llama/onnx/model_fp16.onnx', async (parts, original) => {
      const { candidates } = await measureCosts(parts, texts, { ...base, groupSizes: [2], bypasses: [1] });
      const all = await byComparing(
        original,
        single([2, 3], 1),
        texts.flatMap(({ windows }) => windows),
      );
      expect(Math.abs(candidates[2]!.kl / all.kl - 1)).toBeLessThan(0.05);
    });
  });

  it('runs one window at a time where the batch would change the numbers', async () => {
    await withParts('optimum/llama/onnx/model_quantized.onnx', async (parts) => {
      expect(parts.exactBatches).toBe(false);
      const options = { ...base, groupSizes: [2], bypasses: [1] };
      const all = await measureCosts(parts, texts, options);
      const some = await measureCosts(parts, [texts[1]!], options);
      // Windows do not see each other, so a kind has the same costs with and without the others.
      expect(some.candidates.map(({ kinds }) => kinds[0])).toEqual(
        all.candidates.map(({ kinds }) => kinds[1]),
      );
    });
  });

  it('scores without labels by the definitions', async () => {
    await withParts(llama, async (parts) => {
      const one = [text('prose', [window(12, 37)])];
      const { candidates } = await measureCosts(parts, one, { ...base, skipFirst: 2 });
      const found = candidates.find(({ layers, bypass }) => layers.join() === '2,3,4' && bypass === 'full')!;
      const x = await parts.run({ version: 1, layers: 6, groups: [] }, await parts.embed(one[0]!.windows));
      const states = [await parts.embed(one[0]!.windows)];
      for (let j = 0; j < 6; j++) states.push(await parts.layer(j, states[j]!));
      expect(states[6]).toEqual(x);
      const mask = tokenMask({ batch: 1, sequence: 12, skipFirst: 2 });
      const input = states[2]!;
      const read = await parts.sharing(input).group([2, 3, 4], 'full');
      const distances = [3, 4].map((j) => {
        const whole = states[j + 1]!.data.map((value, i) => value - states[j]!.data[i]!);
        return blockDependency(whole, read.contributions[j - 2]!.data, { hidden: parts.hidden, mask })
          .distance;
      });
      expect(found.scores.dependency).toBeCloseTo(Math.max(...distances), 4);
      const final = await parts.run(single([2, 3, 4], 'full'), input, { from: 2 });
      const moments = (data: Float32Array) => {
        const columns = Array.from({ length: parts.hidden }, (_, c) =>
          Array.from({ length: 10 }, (_, t) => data[(t + 2) * parts.hidden + c]!),
        );
        const mean = columns.map((of) => of.reduce((a, b) => a + b) / 10);
        return {
          mean,
          std: columns.map((of, c) => Math.sqrt(of.reduce((a, v) => a + (v - mean[c]!) ** 2, 0) / 10)),
        };
      };
      const [before, after] = [moments(x.data), moments(final.data)];
      const apart = (a: number[], b: number[]) => Math.hypot(...a.map((value, i) => value - b[i]!));
      const expected =
        (apart(before.mean, after.mean) + apart(before.std, after.std)) / Math.hypot(...before.std);
      expect(found.scores.hidden).toBeCloseTo(expected, 6);
    });
  });

  it('drops what costs most, and what stays has the costs of a full measurement', async () => {
    await withParts(llama, async (parts) => {
      const many = [
        text(
          'prose',
          Array.from({ length: 6 }, (_, i) => window(12, 11 + 20 * i)),
        ),
        texts[1]!,
      ];
      const full = await measureCosts(parts, many, { ...base, positions: 12 });
      const pruned = await measureCosts(parts, many, { ...base, positions: 12, halving: { share: 0.25 } });
      // Rounds of 2, 4 and 8 windows; of 15 pairs 8 and then 4 stay, of 12 threes 6 and then 3.
      const tokens = (size: number) =>
        pruned.candidates.filter(({ layers }) => layers.length === size).map((of) => of.tokens / 11);
      const count = (size: number, windows: number) => tokens(size).filter((n) => n === windows).length;
      expect([2, 4, 8].map((n) => count(2, n))).toEqual([7, 4, 4]);
      expect([2, 4, 8].map((n) => count(3, n))).toEqual([6, 3, 3]);
      for (const [i, found] of pruned.candidates.entries()) {
        expect(found.coarse).toBe(found.tokens < 88);
        if (!found.coarse) expect(Math.abs(found.kl - full.candidates[i]!.kl)).toBeLessThan(1e-6);
      }
      for (const size of [2, 3]) {
        const best = (of: CostsResult) =>
          of.candidates.filter(({ layers }) => layers.length === size).sort((a, b) => a.kl - b.kl)[0]!;
        const kept = pruned.candidates.find(
          ({ layers, bypass }) => layers.join() === best(full).layers.join() && bypass === best(full).bypass,
        )!;
        expect(kept.coarse).toBe(false);
      }
    });
  });

  it('goes on after being stopped anywhere, and gives the same result', async () => {
    await withParts(llama, async (parts) => {
      const file = path.join(folder, 'journal.jsonl');
      const options = { ...base, positions: 24, groupSizes: [2], halving: { share: 0.4 }, journal: file };
      const expected = await measureCosts(parts, texts, options);
      const whole = await readFile(file);
      expect(formatCosts(await measureCosts(parts, texts, { ...options, journal: `${file}.2` }))).toBe(
        formatCosts(expected),
      );
      const ends = [0, ...[...whole.keys()].filter((i) => whole[i] === 10).map((i) => i + 1)];
      expect(ends.length).toBeGreaterThan(10);
      const places = ends.flatMap((end) => [end, end + 1, end + 30]).filter((place) => place <= whole.length);
      for (const place of places) {
        await writeFile(file, whole.subarray(0, place));
        expect(await measureCosts(parts, texts, options)).toEqual(expected);
        expect(await readFile(file)).toEqual(whole);
      }
      // A line damaged in the middle: what stands behind it is measured again.
      const damaged = Buffer.from(whole);
      damaged[ends[3]! + 5] = 0;
      await writeFile(file, damaged);
      expect(await measureCosts(parts, texts, options)).toEqual(expected);
    });
  });

  it('refuses the journal of other work, or starts anew when told to', async () => {
    await withParts(llama, async (parts) => {
      const journal = path.join(folder, 'journal.jsonl');
      const options = { ...base, groupSizes: [2], bypasses: [1], journal };
      const first = await measureCosts(parts, [texts[0]!], options);
      for (const other of [
        { ...options, model: { ...model, sha256: 'another' } },
        { ...options, skipFirst: 2 },
        { ...options, bypasses: [0] },
      ]) {
        await expect(measureCosts(parts, [texts[0]!], other)).rejects.toMatchObject({
          code: 'COSTS_JOURNAL_OTHER',
        });
      }
      await expect(measureCosts(parts, [texts[1]!], options)).rejects.toMatchObject({
        code: 'COSTS_JOURNAL_OTHER',
      });
      expect(await measureCosts(parts, [texts[0]!], options)).toEqual(first);
      const second = await measureCosts(parts, [texts[1]!], { ...options, otherJournal: 'restart' });
      expect(second).toEqual(await measureCosts(parts, [texts[1]!], { ...options, journal: `${journal}.2` }));
      for (const content of ['my notes', 'my notes\nand more\n', '{"a": 1}\n']) {
        await writeFile(journal, content);
        for (const otherJournal of ['error', 'restart'] as const) {
          await expect(measureCosts(parts, [texts[0]!], { ...options, otherJournal })).rejects.toMatchObject({
            code: 'COSTS_JOURNAL_OTHER',
          });
        }
        expect(await readFile(journal, 'utf8')).toBe(content);
      }
      const nowhere = path.join(folder, 'none', 'journal');
      await expect(measureCosts(parts, texts, { ...options, journal: nowhere })).rejects.toMatchObject({
        code: 'WRITE_FAILED',
      });
    });
  });

  it('says how far it is, and stops when asked to', async () => {
    await withParts(llama, async (parts) => {
      const seen: Progress[] = [];
      await measureCosts(parts, texts, {
        ...base,
        halving: { share: 0.4 },
        onProgress: (at) => seen.push(at),
      });
      expect(seen.every(({ done }, i) => done > (seen[i - 1]?.done ?? 0))).toBe(true);
      expect(seen.every(({ done, total }) => done <= total)).toBe(true);
      expect(seen.at(-1)!.done).toBe(seen.at(-1)!.total);
      // The first estimate of all the work is not far off.
      expect(Math.abs(seen[0]!.total / seen.at(-1)!.total - 1)).toBeLessThan(0.3);
      const controller = new AbortController();
      let reports = 0;
      const running = measureCosts(parts, texts, {
        ...base,
        signal: controller.signal,
        onProgress: () => {
          reports += 1;
          controller.abort(new Error('enough'));
        },
      });
      await expect(running).rejects.toThrow('enough');
      expect(reports).toBe(1);
    });
  });

  it('refuses options and texts that make no sense', async () => {
    await withParts(llama, async (parts) => {
      await expect(measureCosts(parts, [], base)).rejects.toMatchObject({ code: 'COSTS_TEXT' });
      for (const wrong of [
        { groupSizes: [7] },
        { positions: 0 },
        { skipFirst: -1 },
        { halving: { keep: 2 } },
      ]) {
        await expect(measureCosts(parts, texts, { ...base, ...wrong })).rejects.toMatchObject({
          code: 'COSTS_OPTIONS',
        });
      }
    });
  });

  it('names the layer whose activations are no numbers', async () => {
    const broken = (await readModel(testdata('genai-fp32/llama/model.onnx'))).clone();
    const [name, tensor] = [...broken.graph.initializers].find(([key]) =>
      key.includes('layers.4.mlp.down_proj'),
    )!;
    const values = new Float32Array(tensor.elementCount).fill(Number.NaN);
    broken.graph.initializers.set(name, Tensor.create(name, tensor.dataType, tensor.dims, values));
    await using parts = await ModelParts.open(broken, analyze(broken), { session });
    await expect(measureCosts(parts, texts, base)).rejects.toMatchObject({
      code: 'ACTIVATION_NOT_FINITE',
      message: expect.stringContaining('layer 4, FFN'),
    });
  });
});

describe('the document', () => {
  it('comes back as it was written', async () => {
    await withParts(llama, async (parts) => {
      const result = await measureCosts(parts, texts, { ...base, halving: { share: 0.4 } });
      const file = path.join(folder, 'costs.json');
      await writeCosts(result, file);
      expect(await readCosts(file)).toEqual(result);
      expect(
        (await readFile(file, 'utf8')).split('\n').filter((line) => line.includes('"bypass":')),
      ).toHaveLength(result.candidates.length);
      const wrong = JSON.parse(formatCosts(result)) as { candidates: { kl: unknown }[] };
      wrong.candidates[3]!.kl = 'low';
      await writeFile(file, JSON.stringify(wrong));
      await expect(readCosts(file)).rejects.toMatchObject({
        code: 'COSTS_INVALID',
        found: expect.stringContaining('candidates[3].kl'),
      });
      await writeFile(file, '{');
      await expect(readCosts(file)).rejects.toMatchObject({ code: 'COSTS_INVALID' });
      await expect(readCosts(`${file}.none`)).rejects.toMatchObject({ code: 'COSTS_NOT_FOUND' });
      await expect(writeCosts(result, path.join(folder, 'none', 'costs.json'))).rejects.toMatchObject({
        code: 'WRITE_FAILED',
      });
    });
  });
});

describe('planCosts', () => {
  const plans = [
    parsePlan({
      version: 1,
      layers: 6,
      groups: [
        { layers: [1, 2], bypass: 1 },
        { layers: [3, 4], bypass: 0 },
      ],
    }),
    parsePlan({ version: 1, layers: 6, groups: [] }),
    single([4, 5], 'full'),
    parsePlan({
      version: 1,
      layers: 6,
      groups: [
        { layers: [1, 2], bypass: 1 },
        { layers: [4, 5], bypass: 0 },
      ],
    }),
    single([0, 1, 2], 'full'),
    single([1, 2], 1),
  ];

  it.each([2 ** 30, 30_000, 1])('costs whole plans, with %i bytes for the states', async (memory) => {
    await withParts(llama, async (parts, original) => {
      const reference = await ReferenceStreams.compute(parts, texts, { positions: 24, memory });
      const costs = await planCosts(parts, plans, reference);
      for (const [i, plan] of plans.entries()) {
        const all = await byComparing(
          original,
          plan,
          texts.flatMap(({ windows }) => windows),
        );
        expect(costs[i]!.tokens).toBe(55);
        expect(costs[i]!.kl).toBeCloseTo(all.kl, 5);
        expect(costs[i]!.crossEntropy).toBeCloseTo(all.crossEntropy, 5);
        expect(costs[i]!.top1).toBeCloseTo(all.top1, 6);
        const prose = await byComparing(original, plan, texts[0]!.windows);
        expect(costs[i]!.kinds[0]!.kl).toBeCloseTo(prose.kl, 5);
        const alone = await planCost(parts, plan, reference);
        expect(Math.abs(alone.kl - costs[i]!.kl)).toBeLessThan(1e-6);
      }
      expect(costs[1]).toMatchObject({ kl: 0, crossEntropy: 0, top1: 1 });
    });
  });

  it('computes what plans have in common once', async () => {
    await withParts(llama, async (parts) => {
      const reference = await ReferenceStreams.compute(parts, [texts[1]!], { positions: 24 });
      let groups = 0;
      const counting = new Proxy(parts, {
        get: (target, name) => {
          if (name === 'group') groups += 1;
          const value = Reflect.get(target, name, target) as unknown;
          return typeof value === 'function' ? value.bind(target) : value;
        },
      });
      await planCosts(counting, plans, reference);
      // [0,1,2]: 4 steps; [1,2] alone: 4; then [3,4]: 2; [4,5]: 1; the original: 0; [4,5] full: 1.
      expect(groups).toBe(4 + 4 + 2 + 1 + 0 + 1);
    });
  });

  it('refuses plans for another model and stops when asked to', async () => {
    await withParts(llama, async (parts) => {
      const reference = await ReferenceStreams.compute(parts, texts);
      const other = parsePlan({ version: 1, layers: 7, groups: [] });
      await expect(planCost(parts, other, reference)).rejects.toMatchObject({ code: 'PLAN_LAYER_COUNT' });
      const signal = AbortSignal.abort(new Error('enough'));
      await expect(planCost(parts, plans[0]!, reference, { signal })).rejects.toThrow('enough');
      await expect(ReferenceStreams.compute(parts, texts, { signal })).rejects.toThrow('enough');
    });
  });
});

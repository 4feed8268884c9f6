import { type Bypass, type Plan, type PlanGroup, sequentialSteps } from '@cqil/core';
import { DecoderSession } from '@cqil/runtime-gpu';
import { expect, it } from 'vitest';
import { loadTokenizer, openTextSets, type TextSet } from '../evaluate/index.js';
import { type Model, readModel } from '../onnx/index.js';
import { rewriteBranches } from '../rewrite/index.js';
import { openVariant } from '../variant/index.js';
import { Bench } from './testing/runs.js';

/** log softmax of all predictions of the windows, by kind: `[tokens][vocabulary]`. */
async function predictions(model: Model, set: TextSet): Promise<Float64Array[][]> {
  const decoder = new DecoderSession(await openVariant(model, { threads: 1 }));
  const kinds: Float64Array[][] = [];
  try {
    for (const { windows } of set.kinds) {
      const rows: Float64Array[] = [];
      for (const ids of windows) {
        const { logits } = await decoder.forward({ inputIds: [ids] });
        const [, length, vocabulary] = logits.dims;
        for (let at = 0; at < length - 1; at++) {
          const row = Float64Array.from(logits.data.subarray(at * vocabulary, (at + 1) * vocabulary));
          const most = Math.max(...row);
          const sum = row.reduce((all, value) => all + Math.exp(value - most), 0);
          rows.push(row.map((value) => value - most - Math.log(sum)));
        }
      }
      kinds.push(rows);
    }
  } finally {
    await decoder.dispose();
  }
  return kinds;
}

/** Mean over kinds of the mean over tokens of KL(original ‖ planned). */
function divergence(original: Float64Array[][], planned: Float64Array[][]): number {
  const kinds = original.map((rows, kind) => {
    const each = rows.map((p, token) => {
      const q = planned[kind]![token]!;
      return p.reduce((sum, value, id) => sum + Math.exp(value) * (value - q[id]!), 0);
    });
    return each.reduce((sum, value) => sum + value, 0) / each.length;
  });
  return kinds.reduce((sum, value) => sum + value, 0) / kinds.length;
}

/** All plans of groups of 2 to 4 with these bypasses, naively: at each layer go on alone or begin any group. */
function* allPlans(layers: number, from = 0, groups: PlanGroup[] = []): Generator<Plan> {
  if (from === layers) {
    yield { version: 1, layers, groups };
    return;
  }
  yield* allPlans(layers, from + 1, groups);
  for (let size = 2; size <= 4 && from + size <= layers; size++) {
    const members = Array.from({ length: size }, (_, i) => from + i);
    for (const bypass of [0, 1, 'full'] as Bypass[]) {
      yield* allPlans(layers, from + size, [...groups, { layers: members, bypass }]);
    }
  }
}

it.each([
  ['optimum/llama', [4], 1e-4],
  ['optimum/gpt2', [4], 1e-4],
  ['optimum/qwen2', [4], 1e-4],
  ['optimum/phi3', [4], 1e-4],
  ['genai-fp32/llama', [5, 4, 3], 1e-4],
  ['genai-fp32/qwen2', [4], 1e-4],
  // Rounds what goes into its products, so that the last digits depend on how the graph is cut.
  ['genai-int4/llama', [4], 0.02],
])(
  '%s: finds the plans of %j steps that are best of all, measured one by one',
  async (fixture, wanted, tolerance) => {
    const bench = await Bench.open(fixture);
    try {
      const tokens = { calibration: 256, development: 128, evaluation: 64 };
      const options = { tokens, searchTokens: 64, costTokens: 64 };
      const report = await bench.run(bench.out(), { ...options, recover: false, baselines: 'none' });

      const sets = await openTextSets(await loadTokenizer(bench.source.root), {
        texts: bench.texts,
        tokens,
        window: 32,
      });
      // Of each kind one window, half of the 64 tokens that plans are measured on.
      const set = {
        ...sets.development,
        kinds: sets.development.kinds.map(({ kind, windows }) => ({ kind, windows: windows.slice(0, 1) })),
      };
      const model = await readModel(bench.source.onnxFile);
      const original = await predictions(model, set);
      const costs = new Map<number, Map<string, number>>(wanted.map((steps) => [steps, new Map()]));
      for (const plan of allPlans(6)) {
        const planned = costs.get(sequentialSteps(plan));
        if (planned === undefined) continue;
        const cost = divergence(original, await predictions(rewriteBranches(model, plan).model, set));
        planned.set(JSON.stringify(plan.groups), cost);
      }

      for (const [steps, planned] of costs) {
        const point = report.front.find((of) => of.steps === steps)!;
        const least = Math.min(...planned.values());
        expect(Math.abs(point.kl / least - 1)).toBeLessThan(tolerance);
        expect(planned.get(JSON.stringify(point.plan.groups))! / least - 1).toBeLessThan(tolerance);
      }
      // 6 places of two pairs and 4 of a triple, with each bypass.
      expect(costs.get(4)?.size).toBe(6 * 9 + 4 * 3);
      expect(report.plan.groups).toEqual(report.front.find(({ steps }) => steps === 4)!.plan.groups);
    } finally {
      await bench.close();
    }
  },
);

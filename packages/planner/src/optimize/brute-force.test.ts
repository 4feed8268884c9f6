import { sequentialSteps } from '@cqil/core';
import { expect, it } from 'vitest';
import { loadTokenizer, openTextSets } from '../evaluate/index.js';
import { readModel } from '../onnx/index.js';
import { rewriteBranches } from '../rewrite/index.js';
import { allPlans, divergence, predictions } from './testing/brute-force.js';
import { Bench } from './testing/runs.js';

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

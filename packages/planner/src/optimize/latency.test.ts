import { latencyLimit, type Plan, type PlanGroup, sequentialSteps } from '@cqil/core';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { loadTokenizer, openTextSets } from '../evaluate/index.js';
import { readModel } from '../onnx/index.js';
import { rewriteBranches } from '../rewrite/index.js';
import type { PredictedLatency } from './options.js';
import { allPlans, divergence, predictions } from './testing/brute-force.js';
import { Bench } from './testing/runs.js';

let bench: Bench;
beforeAll(async () => {
  bench = await Bench.open();
});
afterAll(() => bench.close());

/** A machine with two devices: branches beyond two wait, and each exchange takes a little. */
const change = ({ layers, bypass }: Pick<PlanGroup, 'layers' | 'bypass'>) =>
  (Math.ceil(layers.length / 2) - layers.length) / 6 + (bypass === 0 ? 0.01 : 0.03);
const latency: PredictedLatency = {
  change,
  of: ({ groups }: Plan) => 1 + groups.reduce((sum, group) => sum + change(group), 0),
  described: 'a made-up machine',
  sha256: 'made up',
};
it('finds the plan that costs least of all that are predicted to be fast enough', async () => {
  const target = { targetSpeedup: 1.35 };
  const tokens = { calibration: 256, development: 128, evaluation: 64 };
  const options = {
    tokens,
    searchTokens: 64,
    costTokens: 64,
    groupSizes: [2, 3],
    bypasses: [0, 1],
    recover: false,
    baselines: 'none' as const,
  };
  const report = await bench.run(bench.out(), { ...options, target, latency });

  const { most } = latencyLimit(target, change);
  const fast = [...allPlans(6)].filter(
    (plan) =>
      latency.of(plan) - 1 <= most + 1e-12 &&
      plan.groups.every(({ layers, bypass }) => layers.length < 4 && bypass !== 'full'),
  );
  expect(new Set(fast.map(sequentialSteps))).toEqual(new Set([4, 3, 2]));
  const sets = await openTextSets(await loadTokenizer(bench.source.root), {
    texts: bench.texts,
    tokens,
    window: 32,
  });
  const kinds = sets.development.kinds.map(({ kind, windows }) => ({ kind, windows: windows.slice(0, 1) }));
  const set = { ...sets.development, kinds };
  const model = await readModel(bench.source.onnxFile);
  const original = await predictions(model, set);
  const costs = new Map<string, number>();
  for (const plan of fast) {
    const cost = divergence(original, await predictions(rewriteBranches(model, plan).model, set));
    costs.set(JSON.stringify(plan.groups), cost);
  }
  const least = Math.min(...costs.values());
  const chosen = costs.get(
    JSON.stringify(report.plan.groups.map(({ layers, bypass }) => ({ layers, bypass }))),
  )!;
  expect(chosen / least - 1).toBeLessThan(1e-4);

  expect(report.target).toBe('1.35 times as fast, predicted by a made-up machine');
  expect(report.notes.join('\n')).toMatch(/Predicted to be 1\.\d\d times as fast .* by a made-up machine/);
  // Layers over steps would have taken 4 of 6 steps of any plan; the fastest of those are two pairs.
  expect(1 / latency.of(report.plan)).toBeGreaterThanOrEqual(1.35 - 1e-9);
}, 180_000);

it('refuses at once what no plan is predicted to reach', async () => {
  const slow = { ...latency, change: () => 0.001 };
  const run = bench.run(bench.out(), { target: { targetSpeedup: 1.1 }, latency: slow });
  await expect(run).rejects.toMatchObject({
    code: 'TARGET_UNREACHABLE',
    found: 'no plan that is faster than the model as it is',
  });
});

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { sequentialSteps } from '../plan/steps.js';
import type { Plan } from '../plan/types.js';
import { reachableSteps } from './counting.js';
import { optimalPlans } from './optimal.js';
import { searchPlans } from './search.js';
import { latencyLimit, stepsForLatency } from './target.js';
import {
  allPlans,
  type Group,
  hiddenInteraction,
  instances,
  nameOf,
  noise,
  stepsOf,
  totalOf,
} from './testing/brute-force.js';

const cost = (group: Group) => group.cost;
const groupsIn = (groups: readonly Group[], plan: Plan) =>
  plan.groups.map((group) => groups.find((one) => nameOf(one) === nameOf(group))!);

/** A latency for each group: most are faster than their layers, some slower. */
const changeOf = (seed: number) => (group: Group) => 0.1 * (noise(`${seed}/${nameOf(group)}`) - 0.8);
const sumOf = (groups: readonly Group[], change: (group: Group) => number) =>
  groups.reduce((sum, group) => sum + change(group), 0);

it('finds the best plan that keeps to a latency, for each number of steps: against trying all', async () => {
  await fc.assert(
    fc.asyncProperty(
      instances(fc.double({ min: 0, max: 3, noNaN: true })),
      fc.nat(),
      fc.double({ min: 0, max: 0.2, noNaN: true }),
      async ({ layers, groups }, seed, less) => {
        const interaction = hiddenInteraction(seed, 1);
        const change = changeOf(seed);
        const most = -less;
        const result = await searchPlans({
          layers,
          candidates: groups,
          cost,
          budget: 100_000,
          latency: { change, most },
          measure: async (plan) => totalOf(groupsIn(groups, plan), interaction),
        });
        const fit = allPlans(layers, groups).filter(
          (plan) => plan.length > 0 && sumOf(plan, change) <= most + 1e-12,
        );
        expect(result.points.map(({ steps }) => steps)).toEqual(
          reachableSteps({ layers, candidates: groups }).filter((steps) =>
            fit.some((plan) => stepsOf(layers, plan) === steps),
          ),
        );
        for (const point of result.points) {
          const costs = fit
            .filter((plan) => stepsOf(layers, plan) === point.steps)
            .map((plan) => totalOf(plan, interaction));
          expect(point).toMatchObject({ plans: costs.length, measured: costs.length, exhaustive: true });
          expect(point.cost).toBe(Math.min(...costs));
        }
      },
    ),
    { numRuns: 60 },
  );
});

it('finds plans that keep to it where not all are measured, and never measures another', async () => {
  await fc.assert(
    fc.asyncProperty(
      instances(fc.double({ min: 0, max: 3, noNaN: true })),
      fc.nat(),
      fc.integer({ min: 1, max: 4 }),
      fc.integer({ min: 1, max: 50 }),
      async ({ layers, groups }, seed, budget, nodes) => {
        const change = changeOf(seed);
        // As tight as it can be: the fastest plan of all alone keeps to it.
        const all = allPlans(layers, groups);
        const most = Math.min(...all.map((plan) => sumOf(plan, change)));
        const result = await searchPlans({
          layers,
          candidates: groups,
          cost,
          budget,
          nodes,
          latency: { change, most },
          seeds: all.slice(0, 5).map((plan) => ({ version: 1, layers, groups: plan })),
          measure: async (plan) => {
            expect(sumOf(groupsIn(groups, plan), change)).toBeLessThanOrEqual(most + 1e-11);
            return totalOf(groupsIn(groups, plan));
          },
        });
        if (most >= 0) return;
        expect(result.points.length).toBeGreaterThan(0);
      },
    ),
    { numRuns: 60 },
  );
});

it('begins with the least sum of costs among plans that keep to it', async () => {
  const layers = 16;
  const groups: Group[] = Array.from({ length: 15 }, (_, first) => ({
    layers: [first, first + 1],
    bypass: 0,
    cost: 1 + first,
  }));
  // Early groups cost least and gain nothing.
  const change = (group: Group) => (group.layers[0]! < 6 ? 0 : -0.05);
  const order: string[] = [];
  await searchPlans({
    layers,
    candidates: groups,
    cost,
    budget: 3,
    steps: [12],
    latency: { change, most: -0.1 },
    measure: async (plan) => {
      order.push(plan.groups.map(nameOf).join(' '));
      return totalOf(groupsIn(groups, plan));
    },
  });
  // Two that gain, at the least cost, and the two that cost least of all.
  expect(order[0]).toBe('0+1:0 2+3:0 6+7:0 8+9:0');
});

it('is the search without a limit where all plans keep to it', async () => {
  const groups: Group[] = Array.from({ length: 11 }, (_, first) => ({
    layers: [first, first + 1],
    bypass: 0,
    cost: noise(`cost ${first}`),
  }));
  const options = {
    layers: 12,
    candidates: groups,
    cost,
    budget: 6,
    measure: async (plan: Plan) => totalOf(groupsIn(groups, plan), hiddenInteraction(3, 0.5)),
  };
  const free = await searchPlans(options);
  const limited = await searchPlans({ ...options, latency: { change: () => -1, most: 0 } });
  expect(limited).toEqual(free);
});

it('refuses a latency that is no number', async () => {
  const groups: Group[] = [{ layers: [0, 1], bypass: 0, cost: 1 }];
  const options = { layers: 3, candidates: groups, cost, budget: 1, measure: async () => 1 };
  for (const [path, latency] of [
    ['latency.most', { change: () => 0, most: Number.NaN }],
    ['latency.change of candidates[0]', { change: () => Number.POSITIVE_INFINITY, most: 0 }],
  ] as const) {
    await expect(searchPlans({ ...options, latency })).rejects.toMatchObject({
      code: 'PLAN_PARAMETERS',
      path,
    });
  }
});

describe('numbers of steps for a speed-up that is predicted', () => {
  const groups: Group[] = Array.from({ length: 9 }, (_, first) => ({
    layers: [first, first + 1],
    bypass: 0,
    cost: 1,
  }));
  const model = { layers: 10, candidates: groups };

  it('are those that a plan of which is fast enough has', () => {
    const change = () => -0.1;
    expect(stepsForLatency({ targetSpeedup: 1.2 }, model, change)).toEqual([8, 7, 6, 5]);
    // As people write it: exactly 1 / (1 − 0.5).
    expect(stepsForLatency({ targetSpeedup: 2 }, model, change)).toEqual([5]);
    const { most } = latencyLimit({ targetSpeedup: 2 }, change);
    for (const { plans } of optimalPlans({ ...model, cost, steps: [5] })) {
      expect(plans.every(({ plan }) => plan.groups.length * -0.1 <= most)).toBe(true);
      expect(plans.map(({ plan }) => sequentialSteps(plan))).toEqual([5]);
    }
  });

  it('are refused with the fastest there is', () => {
    const refused = (change: number) => () => stepsForLatency({ targetSpeedup: 3 }, model, () => change);
    expect(refused(-0.1)).toThrow(/2\.00 times as fast at the most, with 5 steps/);
    expect(refused(0.001)).toThrow(/no plan that is faster/);
    expect(refused(0.001)).toThrow(expect.objectContaining({ hint: expect.stringContaining('--form wide') }));
  });
});

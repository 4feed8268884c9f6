import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parsePlan } from '../plan/parse.js';
import { sequentialSteps } from '../plan/steps.js';
import type { Plan } from '../plan/types.js';
import type { Progress } from '../progress.js';
import { optimalPlans, type PlanCost } from './optimal.js';
import { type SearchOptions, searchPlans } from './search.js';
import {
  allPlans,
  type Group,
  hiddenInteraction,
  instances,
  nameOf,
  namesOf,
  noise,
  orderOf,
  stepsOf,
  totalOf,
} from './testing/brute-force.js';
import { uniformPlans } from './uniform-plans.js';

const cost = (group: Group) => group.cost;

/** A measurement that knows of hidden interactions. */
function measuring(groups: readonly Group[], interaction: (a: Group, b: Group) => number) {
  const byName = new Map(groups.map((group) => [nameOf(group), group]));
  return (plan: Plan) =>
    totalOf(
      plan.groups.map((group) => byName.get(nameOf(group))!),
      interaction,
    );
}

/**
 * A made-up model: each group changes the logits by a vector, neighbouring groups by similar ones, and a plan costs
 * half the squared length of the sum of its changes, and more where that is large.
 */
function madeUpModel(layers: number, seed: number) {
  const dimensions = 6;
  const normal = (text: string) => {
    let sum = -6;
    for (let i = 0; i < 12; i++) sum += noise(`${seed} ${text} ${i}`);
    return sum;
  };
  const changes = new Map<string, number[]>();
  const joint = (groups: readonly { layers: readonly number[]; bypass: number | 'full' }[]) => {
    let length = 0;
    for (let k = 0; k < dimensions; k++) {
      length += groups.reduce((sum, group) => sum + changes.get(nameOf(group))![k]!, 0) ** 2;
    }
    return Math.expm1(length / 2);
  };
  const groups: Omit<Group, 'cost'>[] = [];
  for (let first = 1; first < layers - 1; first++) {
    for (let size = 2; size <= 4 && first + size < layers; size++) {
      for (const bypass of [0, 1, 'full'] as const) {
        const group = { layers: Array.from({ length: size }, (_, i) => first + i), bypass };
        const change = Array.from({ length: dimensions }, (_, k) => {
          const shared = group.layers.reduce((sum, layer) => sum + normal(`layer ${layer} ${k}`), 0);
          return 0.05 * (size - 1) * (0.3 + shared / size + 0.5 * normal(`${nameOf(group)} ${k}`));
        });
        changes.set(nameOf(group), change);
        groups.push(group);
      }
    }
  }
  return { candidates: groups.map((group): Group => ({ ...group, cost: joint([group]) })), joint };
}

it('finds the best plan of all where the budget allows to measure all', async () => {
  await fc.assert(
    fc.asyncProperty(
      instances(fc.double({ min: 0, max: 3, noNaN: true })),
      fc.nat(),
      fc.constantFrom(0.5, 5),
      async ({ layers, groups }, seed, size) => {
        const interaction = hiddenInteraction(seed, size);
        const truth = measuring(groups, interaction);
        const result = await searchPlans({
          layers,
          candidates: groups,
          cost,
          budget: 10_000,
          measure: async (plan) => truth(plan),
        });
        const all = allPlans(layers, groups);
        const steps = [...new Set(all.map((plan) => stepsOf(layers, plan)))].filter((n) => n < layers);
        expect(result.points.map((point) => point.steps)).toEqual(steps.sort((a, b) => b - a));
        for (const point of result.points) {
          const plans = all.filter((plan) => stepsOf(layers, plan) === point.steps);
          const best = Math.min(...plans.map((plan) => totalOf(plan, interaction)));
          expect(point).toMatchObject({ cost: best, plans: plans.length, measured: plans.length });
          expect(point).toMatchObject({ exhaustive: true, settled: true, proven: true });
          expect(truth(point.plan)).toBe(best);
          expect(parsePlan(point.plan, { layers })).toEqual(point.plan);
          const isBeaten = result.points.some((o) => o.steps < point.steps && o.cost <= point.cost);
          expect(point.dominated).toBe(isBeaten);
        }
        expect(result.front).toEqual(result.points.filter((point) => !point.dominated));
      },
    ),
    { numRuns: 50 },
  );
});

it('is never worse than the least sum, within its budget, and takes the best of what it measured', async () => {
  await fc.assert(
    fc.asyncProperty(
      instances(fc.double({ min: 0, max: 3, noNaN: true })),
      fc.nat(),
      fc.integer({ min: 1, max: 9 }),
      async ({ layers, groups }, seed, budget) => {
        const truth = measuring(groups, hiddenInteraction(seed, 3));
        const measured: PlanCost[] = [];
        const result = await searchPlans({
          layers,
          candidates: groups,
          cost,
          budget,
          measure: async (plan) => truth(plan),
          onMeasured: (plan, value) => void measured.push({ plan, cost: value }),
        });
        expect(result.calls).toBe(measured.length);
        expect(new Set(measured.map(({ plan }) => namesOf(plan).join())).size).toBe(measured.length);
        const additive = optimalPlans({ layers, candidates: groups, cost });
        for (const point of result.points) {
          const own = measured.filter(({ plan }) => sequentialSteps(plan) === point.steps);
          expect(own.length).toBe(point.measured);
          expect(own.length).toBeLessThanOrEqual(budget);
          expect(point.cost).toBe(Math.min(...own.map((one) => one.cost)));
          expect(truth(point.plan)).toBe(point.cost);
          const sum = additive.find(({ steps }) => steps === point.steps)!.plans[0]!.plan;
          expect(point.cost).toBeLessThanOrEqual(truth(sum));
          expect(point.exhaustive).toBe(point.measured === point.plans);
          expect(point.settled || own.length === Math.min(budget, point.plans)).toBe(true);
        }
      },
    ),
    { numRuns: 50 },
  );
});

it('makes more of its measurements than the plans with the least sums do', async () => {
  const layers = 20;
  const budget = 24;
  const steps = [17, 15, 13];
  const ratios: number[] = [];
  for (const seed of [1, 2, 3, 4]) {
    const { candidates, joint } = madeUpModel(layers, seed);
    const options = { layers, candidates, cost, steps };
    const { points } = await searchPlans({ ...options, budget, measure: async (plan) => joint(plan.groups) });
    const sums = optimalPlans({ ...options, count: budget });
    for (const [i, point] of points.entries()) {
      const costs = sums[i]!.plans.map(({ plan }) => joint(plan.groups));
      expect(costs).toHaveLength(budget);
      expect(point.measured).toBeLessThanOrEqual(budget);
      expect(point.cost).toBeLessThanOrEqual(costs[0]!);
      ratios.push(Math.log(point.cost / Math.min(...costs)));
    }
  }
  // One search may be unlucky; over all of them it is ahead.
  const mean = Math.exp(ratios.reduce((sum, ratio) => sum + ratio, 0) / ratios.length);
  expect(mean).toBeLessThan(0.85);
});

it('ends early where costs add up: nothing is promised any more', async () => {
  const groups: Group[] = Array.from({ length: 15 }, (_, first) => ({
    layers: [first, first + 1],
    bypass: 0,
    cost: (first + 1) ** 3,
  }));
  const result = await searchPlans({
    layers: 16,
    candidates: groups,
    cost,
    steps: [13],
    budget: 200,
    measure: async (plan) => measuring(groups, () => 0)(plan),
  });
  expect(result.points[0]).toMatchObject({ settled: true, proven: true, exhaustive: false });
  expect(namesOf(result.points[0]!.plan)).toEqual(['0+1:0', '2+3:0', '4+5:0']);
  expect(result.calls).toBeLessThan(100);
});

describe('on a made-up model', () => {
  const layers = 18;
  const { candidates, joint } = madeUpModel(layers, 9);
  const options: SearchOptions<Group> = {
    layers,
    candidates,
    cost,
    steps: [15, 13],
    budget: 10,
    measure: async (plan) => joint(plan.groups),
  };

  /** The options with a record of what is measured. */
  function recording(): { options: SearchOptions<Group>; record: PlanCost[] } {
    const record: PlanCost[] = [];
    const onMeasured = async (plan: Plan, value: number) => {
      record.push({ plan, cost: value });
    };
    return { options: { ...options, onMeasured }, record };
  }

  it('gives the same result again, whatever the order of candidates and steps', async () => {
    const first = recording();
    const result = await searchPlans(first.options);
    const second = recording();
    const again = await searchPlans({
      ...second.options,
      candidates: candidates.toReversed(),
      steps: [13, 15, 13],
    });
    expect(again).toEqual(result);
    expect(second.record).toEqual(first.record);
  });

  it('goes on from known measurements to the same result with fewer calls', async () => {
    const { options: recorded, record } = recording();
    const result = await searchPlans(recorded);
    for (const kept of [1, 7, 13, record.length]) {
      const resumed = await searchPlans({ ...options, known: record.slice(0, kept).reverse() });
      expect(resumed).toEqual({ ...result, calls: record.length - kept });
    }
  });

  it('takes a better plan that was known, and the later of two measurements', async () => {
    const found = (await searchPlans(options)).points[0]!;
    const [, second] = optimalPlans({ layers, candidates, cost, steps: [15], count: 300 })[0]!.plans.slice(
      -2,
    );
    const known = [
      { plan: second!.plan, cost: 5 },
      { plan: second!.plan, cost: found.cost / 2 },
      { plan: { version: 1 as const, layers, groups: [{ layers: [0, 1, 2], bypass: 0 }] }, cost: 0 },
    ];
    const { points } = await searchPlans({ ...options, known });
    expect(points[0]).toMatchObject({ cost: found.cost / 2, measured: 11 });
    expect(namesOf(points[0]!.plan)).toEqual(namesOf(second!.plan));
  });

  it('measures seeds, and passes over those that it could not propose', async () => {
    const { options: recorded, record } = recording();
    const seeds = uniformPlans({ layers, groupSizes: [2], bypasses: [1], steps: 15, from: 0 });
    await searchPlans({ ...recorded, steps: [15], budget: 50, seeds });
    const possible = seeds.filter(
      (seed) => seed.groups[0]!.layers[0]! > 0 && seed.groups.at(-1)!.layers[1]! < 17,
    );
    expect(possible.length).toBeLessThan(seeds.length);
    // The least sum comes first.
    const names = record.slice(1, 1 + possible.length).map(({ plan }) => namesOf(plan));
    expect(names).toEqual(possible.map(namesOf));
  });

  it('learns from known plans with other numbers of steps', async () => {
    const { options: recorded, record } = recording();
    await searchPlans({ ...recorded, steps: [13], budget: 30 });
    const known = [...record];
    const alone = recording();
    await searchPlans({ ...alone.options, steps: [15] });
    const informed = recording();
    await searchPlans({ ...informed.options, steps: [15], known });
    expect(informed.record.map(({ plan }) => namesOf(plan))).not.toEqual(
      alone.record.map(({ plan }) => namesOf(plan)),
    );
  });

  it('stops at an abort with its reason, after what was measured was handed over', async () => {
    const controller = new AbortController();
    const { options: recorded, record } = recording();
    const measure = async (plan: Plan) => {
      if (record.length === 3) controller.abort(new Error('enough'));
      return joint(plan.groups);
    };
    const search = searchPlans({ ...recorded, measure, signal: controller.signal });
    await expect(search).rejects.toThrowError('enough');
    expect(record).toHaveLength(4);
  });

  it('reports its progress up to the whole', async () => {
    const reports: Progress[] = [];
    const known = [optimalPlans({ layers, candidates, cost, steps: [15] })[0]!.plans[0]!];
    await searchPlans({ ...options, known, onProgress: (progress) => reports.push(progress) });
    expect(reports[0]).toEqual({ phase: 'searching plans', done: 1, total: 20, unit: 'measurements' });
    expect(reports.at(-1)).toMatchObject({ done: 20, total: 20 });
    const done = reports.map((report) => report.done);
    expect(done).toEqual(done.toSorted((a, b) => a - b));
  });

  it('says where proposals were not proven', async () => {
    const { points } = await searchPlans({ ...options, nodes: 2 });
    expect(points.map((point) => point.proven)).toEqual([false, false]);
    expect(points.every((point) => point.cost > 0)).toBe(true);
  });
});

it('takes the first of plans that measure the same', async () => {
  const groups: Group[] = [3, 1, 5].map((first) => ({ layers: [first, first + 1], bypass: 0, cost: first }));
  const result = await searchPlans({
    layers: 7,
    candidates: groups,
    cost,
    budget: 99,
    measure: async () => 1,
  });
  expect(result.points.map((point) => [point.steps, orderOf(point.plan.groups), point.dominated])).toEqual([
    [6, '120', true],
    [5, '120,320', true],
    [4, '120,320,520', false],
  ]);
  expect(result.front).toHaveLength(1);
});

it('hands on what a measurement throws, and refuses what is wrong', async () => {
  const groups: Group[] = [0, 2].map((first) => ({ layers: [first, first + 1], bypass: 0, cost: 1 }));
  const good: SearchOptions<Group> = {
    layers: 4,
    candidates: groups,
    cost,
    budget: 5,
    measure: async () => 1,
  };
  const broken = searchPlans({
    ...good,
    measure: async () => {
      throw new Error('out of memory');
    },
  });
  await expect(broken).rejects.toThrowError('out of memory');
  const empty: Plan = { version: 1, layers: 4, groups: [] };
  const wrong: [string, Partial<SearchOptions<Group>>][] = [
    ['budget', { budget: 0 }],
    ['nodes', { nodes: 0.5 }],
    ['steps[0]', { steps: [1] }],
    ['candidates[1]', { candidates: [groups[0]!, groups[0]!] }],
    ['candidates[0]', { cost: () => Number.NaN }],
    ['candidates[1].layers', { candidates: [groups[0]!, { layers: [3, 4], bypass: 0, cost: 1 }] }],
    ['measure', { measure: async () => Number.NaN }],
    ['measure', { measure: async () => Number.POSITIVE_INFINITY }],
    ['known[0].cost', { known: [{ plan: empty, cost: Number.NaN }] }],
  ];
  for (const [path, options] of wrong) {
    const fault = expect.objectContaining({ name: 'PlanError', code: 'PLAN_PARAMETERS', path });
    await expect(searchPlans({ ...good, ...options })).rejects.toThrowError(fault);
  }
  const other = searchPlans({ ...good, seeds: [{ ...empty, layers: 5 }] });
  await expect(other).rejects.toThrowError(expect.objectContaining({ code: 'PLAN_LAYER_COUNT' }));
});

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parsePlan } from '../plan/parse.js';
import { sequentialSteps } from '../plan/steps.js';
import type { Bypass } from '../plan/types.js';
import { reachableSteps } from './counting.js';
import { optimalPlans } from './optimal.js';
import {
  allPlans,
  type Group,
  instances,
  namesOf,
  orderOf,
  stepsOf,
  totalOf,
} from './testing/brute-force.js';

const cost = (group: Group) => group.cost;
const group = (layers: number[], bypass: Bypass, cost: number): Group => ({ layers, bypass, cost });

it('finds the cheapest plan for every number of steps', () => {
  const candidates = [
    group([0, 1], 0, 5),
    group([1, 2], 0, 1),
    group([2, 3], 0, 3),
    group([2, 3], 1, 2),
    group([1, 2, 3], 'full', 4),
  ];
  const found = optimalPlans({ layers: 4, candidates, cost });
  expect(found.map(({ steps, plans }) => [steps, plans[0]!.cost, namesOf(plans[0]!.plan)])).toEqual([
    [4, 0, []],
    [3, 1, ['1+2:0']],
    [2, 4, ['1+2+3:full']],
  ]);
});

it('gives the best of all plans in order, whatever the costs: against trying all', () => {
  const costs = fc.oneof(fc.integer({ min: -2, max: 3 }), fc.double({ min: -1, max: 9, noNaN: true }));
  fc.assert(
    fc.property(instances(costs), fc.integer({ min: 1, max: 12 }), ({ layers, groups }, count) => {
      const all = allPlans(layers, groups);
      const found = optimalPlans({ layers, candidates: groups, cost, count });
      const reachable = [...new Set(all.map((plan) => stepsOf(layers, plan)))].sort((a, b) => b - a);
      expect(found.map(({ steps }) => steps)).toEqual(reachable);
      expect(reachableSteps({ layers, candidates: groups })).toEqual(reachable);
      for (const { steps, plans } of found) {
        const best = all.filter((plan) => stepsOf(layers, plan) === steps).map((plan) => totalOf(plan));
        expect(plans.map((plan) => plan.cost)).toEqual(best.sort((a, b) => a - b).slice(0, count));
        expect(new Set(plans.map(({ plan }) => namesOf(plan).join())).size).toBe(plans.length);
        for (const { plan } of plans) {
          expect(parsePlan(plan, { layers })).toEqual(plan);
          expect(sequentialSteps(plan)).toBe(steps);
        }
      }
    }),
  );
});

it('breaks ties in the documented order, whatever the order of the candidates', () => {
  fc.assert(
    fc.property(
      instances(fc.integer({ min: 0, max: 2 })),
      fc.integer({ min: 1, max: 9 }),
      (instance, count) => {
        const { layers, groups } = instance;
        const all = allPlans(layers, groups).map((plan) => ({
          plan,
          cost: totalOf(plan),
          order: orderOf(plan),
        }));
        const found = optimalPlans({ layers, candidates: groups, cost, count });
        for (const { steps, plans } of found) {
          const expected = all
            .filter(({ plan }) => stepsOf(layers, plan) === steps)
            .sort((a, b) => a.cost - b.cost || (a.order < b.order ? -1 : 1));
          expect(plans.map(({ plan }) => orderOf(plan.groups))).toEqual(
            expected.slice(0, count).map(({ order }) => order),
          );
        }
        expect(optimalPlans({ layers, candidates: groups.toReversed(), cost, count })).toEqual(found);
      },
    ),
  );
});

it('keeps to the steps that are asked for', () => {
  const candidates = [group([0, 1, 2], 0, 1), group([3, 4, 5], 0, 2)];
  const found = optimalPlans({ layers: 7, candidates, cost, steps: [3, 5, 3] });
  expect(found.map(({ steps, plans }) => [steps, plans.length])).toEqual([
    [5, 1],
    [3, 1],
  ]);
  expect(() => optimalPlans({ layers: 7, candidates, cost, steps: [6] })).toThrowError(
    expect.objectContaining({ code: 'PLAN_PARAMETERS', path: 'steps[0]', expected: 'one of 7, 5, 3' }),
  );
  expect(optimalPlans({ layers: 2, candidates: [], cost })).toMatchObject([
    { steps: 2, plans: [{ cost: 0 }] },
  ]);
});

it('manages a deep model with many candidates', () => {
  const candidates: Group[] = [];
  for (let first = 0; first < 80; first++) {
    for (let size = 2; size <= 4 && first + size <= 80; size++) {
      const run = Array.from({ length: size }, (_, i) => first + i);
      for (const bypass of [0, 1, 'full'] as const) {
        candidates.push(group(run, bypass, ((first * 7 + size * 3) % 11) + 1));
      }
    }
  }
  const found = optimalPlans({ layers: 80, candidates, cost, count: 5 });
  expect(found).toHaveLength(61);
  expect(found.at(-1)!.plans[0]!.plan.groups).toHaveLength(20);
});

describe('refuses', () => {
  const good = group([0, 1], 0, 1);
  it.each([
    ['candidates[1].layers', [good, group([3, 4], 0, 1)]],
    ['candidates[0].layers', [group([-1, 0], 0, 1)]],
    ['candidates[0].layers', [group([1], 0, 1)]],
    ['candidates[0].layers', [group([], 0, 1)]],
    ['candidates[0].layers', [group([0, 2], 0, 1)]],
    ['candidates[0].layers', [group([1, 0], 0, 1)]],
    ['candidates[0].layers', [group([0.5, 1.5], 0, 1)]],
    ['candidates[0].bypass', [group([0, 1], -1, 1)]],
    ['candidates[1]', [good, group([0, 1], 0, 2)]],
    // A pair has no more than one layer to bypass, so these mean the same.
    ['candidates[1]', [group([0, 1], 1, 1), group([0, 1], 5, 1)]],
    ['candidates[1]', [good, group([1, 2], 0, Number.NaN)]],
    ['candidates[0]', [group([1, 2], 0, Number.POSITIVE_INFINITY)]],
  ])('%s in %j', (path, candidates) => {
    const fault = expect.objectContaining({ name: 'PlanError', code: 'PLAN_PARAMETERS', path });
    expect(() => optimalPlans({ layers: 4, candidates, cost })).toThrowError(fault);
  });

  it.each([
    ['layers', { layers: 0 }],
    ['count', { count: 0 }],
    ['count', { count: 1.5 }],
  ])('a wrong %s', (path, wrong) => {
    const fault = expect.objectContaining({ code: 'PLAN_PARAMETERS', path });
    expect(() => optimalPlans({ layers: 4, candidates: [good], cost, ...wrong })).toThrowError(fault);
  });
});

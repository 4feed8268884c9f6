import fc from 'fast-check';
import { expect, it } from 'vitest';
import { sequentialSteps } from '../plan/steps.js';
import { reachableSteps } from './counting.js';
import { interactingPlans } from './interacting.js';
import { optimalPlans } from './optimal.js';
import {
  allPlans,
  type Group,
  hiddenInteraction,
  instances,
  orderOf,
  stepsOf,
  totalOf,
} from './testing/brute-force.js';

const cost = (group: Group) => group.cost;

it('finds the best plans of all with interactions: against trying all', () => {
  fc.assert(
    fc.property(
      instances(fc.double({ min: 0, max: 3, noNaN: true })),
      fc.nat(),
      fc.constantFrom(0.3, 3, 30),
      fc.integer({ min: 1, max: 5 }),
      ({ layers, groups }, seed, size, count) => {
        const interaction = hiddenInteraction(seed, size);
        const all = allPlans(layers, groups);
        for (const steps of reachableSteps({ layers, candidates: groups })) {
          const found = interactingPlans({ layers, candidates: groups, cost, interaction, steps, count });
          const best = all
            .filter((plan) => stepsOf(layers, plan) === steps)
            .map((plan) => totalOf(plan, interaction))
            .sort((a, b) => a - b)
            .slice(0, count);
          expect(found.proven).toBe(true);
          expect(found.plans.map((plan) => plan.cost)).toEqual(best);
          expect(new Set(found.plans.map(({ plan }) => orderOf(plan.groups))).size).toBe(best.length);
          for (const { plan } of found.plans) expect(sequentialSteps(plan)).toBe(steps);
        }
      },
    ),
    { numRuns: 60 },
  );
});

it('breaks ties in the documented order', () => {
  fc.assert(
    fc.property(instances(fc.integer({ min: 0, max: 2 })), fc.nat(), (instance, seed) => {
      const { layers, groups } = instance;
      const hidden = hiddenInteraction(seed, 2);
      const interaction = (a: Group, b: Group) => Math.round(hidden(a, b));
      for (const steps of reachableSteps({ layers, candidates: groups })) {
        const found = interactingPlans({ layers, candidates: groups, cost, interaction, steps, count: 4 });
        const expected = allPlans(layers, groups)
          .filter((plan) => stepsOf(layers, plan) === steps)
          .map((plan) => ({ order: orderOf(plan), cost: totalOf(plan, interaction) }))
          .sort((a, b) => a.cost - b.cost || (a.order < b.order ? -1 : 1));
        expect(found.plans.map(({ plan }) => orderOf(plan.groups))).toEqual(
          expected.slice(0, 4).map(({ order }) => order),
        );
      }
    }),
    { numRuns: 60 },
  );
});

it('is the dynamic programme where nothing interacts', () => {
  fc.assert(
    fc.property(instances(fc.double({ min: 0, max: 3, noNaN: true })), ({ layers, groups }) => {
      for (const { steps, plans } of optimalPlans({ layers, candidates: groups, cost, count: 3 })) {
        const found = interactingPlans({
          layers,
          candidates: groups,
          cost,
          interaction: () => 0,
          steps,
          count: 3,
        });
        expect(found.plans.map((plan) => plan.cost)).toEqual(plans.map((plan) => plan.cost));
      }
    }),
  );
});

/** Everything of two to four layers that a model has room for. */
function dense(layers: number): Group[] {
  const groups: Group[] = [];
  for (let first = 0; first < layers; first++) {
    for (let size = 2; size <= 4 && first + size <= layers; size++) {
      const run = Array.from({ length: size }, (_, i) => first + i);
      for (const bypass of [0, 1, 'full'] as const) groups.push({ layers: run, bypass, cost: size - 1 });
    }
  }
  return groups;
}

it('says so when it stops before it is sure, and still gives plans', () => {
  const candidates = dense(24);
  const interaction = hiddenInteraction(7, 1);
  const options = { layers: 24, candidates, cost, interaction, steps: 14, count: 2 };
  const short = interactingPlans({ ...options, nodes: 200 });
  expect(short).toMatchObject({ proven: false, nodes: 200 });
  expect(short.plans).toHaveLength(2);
  const longer = interactingPlans({ ...options, nodes: 2000 });
  expect(longer.plans[0]!.cost).toBeLessThanOrEqual(short.plans[0]!.cost);
  expect(interactingPlans({ ...options, nodes: 200 })).toEqual(short);
});

it('asks for the interaction of each pair without overlap once, the earlier group first', () => {
  const asked: string[] = [];
  const candidates = [
    { layers: [2, 3], bypass: 0, cost: 1 },
    { layers: [0, 1], bypass: 0, cost: 1 },
    { layers: [1, 2], bypass: 0, cost: 1 },
  ];
  interactingPlans({
    layers: 4,
    candidates,
    cost,
    steps: 2,
    interaction: (a, b) => {
      asked.push(`${a.layers.join('+')} ${b.layers.join('+')}`);
      return 0;
    },
  });
  expect(asked).toEqual(['0+1 2+3']);
});

it('refuses what is no number of steps, nodes or interaction', () => {
  const candidates = [
    { layers: [0, 1], bypass: 0, cost: 1 },
    { layers: [2, 3], bypass: 0, cost: 1 },
  ] as const;
  const good = { layers: 4, candidates, cost, interaction: () => 0, steps: 2 };
  for (const [path, wrong] of [
    ['steps[0]', { steps: 1 }],
    ['nodes', { nodes: 0 }],
    ['count', { count: Number.NaN }],
    ['interaction of candidates[0] and candidates[1]', { interaction: () => Number.NaN }],
  ] as const) {
    const fault = expect.objectContaining({ code: 'PLAN_PARAMETERS', path });
    expect(() => interactingPlans({ ...good, ...wrong })).toThrowError(fault);
  }
});

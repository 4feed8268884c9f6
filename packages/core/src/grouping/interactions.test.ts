import fc from 'fast-check';
import { expect, it } from 'vitest';
import type { Bypass, Plan } from '../plan/types.js';
import { fitInteractions } from './interactions.js';
import { allPlans, type Group, hiddenInteraction, instances, noise, totalOf } from './testing/brute-force.js';

const cost = (group: Group) => group.cost;
const planOf = (layers: number, groups: readonly Group[]): Plan => ({
  version: 1,
  layers,
  groups: groups.map(({ layers, bypass }) => ({ layers, bypass })),
});

/** Pairs and triples over 12 layers whose effects on the logits add up as vectors with a known angle. */
function pairsOf(layers: number, bypass: Bypass = 0): Group[] {
  return Array.from({ length: layers - 1 }, (_, first) => ({
    layers: [first, first + 1],
    bypass,
    cost: 0.02 + 0.1 * noise(`cost ${first}`),
  }));
}

it('knows of no interaction before anything is measured', () => {
  const candidates = pairsOf(8);
  const fit = fitInteractions({ layers: 8, candidates, cost, measured: [] });
  const plan = planOf(8, [candidates[0]!, candidates[2]!, candidates[5]!]);
  expect(fit.between(candidates[0]!, candidates[4]!)).toBe(0);
  expect(fit.predict(plan)).toBe(totalOf([candidates[0]!, candidates[2]!, candidates[5]!]));
});

it('finds one angle between all changes from a few plans, and predicts others by it', () => {
  const candidates = pairsOf(12);
  const rho = 0.6;
  const interaction = (a: Group, b: Group) => 2 * rho * Math.sqrt(a.cost * b.cost);
  const all = allPlans(12, candidates).filter((groups) => groups.length > 1);
  const chosen = all.filter((_, i) => i % 40 === 0);
  const measured = chosen.map((groups) => ({
    plan: planOf(12, groups),
    cost: totalOf(groups, interaction),
  }));
  const fit = fitInteractions({ layers: 12, candidates, cost, measured });
  expect(measured.length).toBeLessThan(8);
  for (const groups of all) {
    const truth = totalOf(groups, interaction);
    expect(Math.abs(fit.predict(planOf(12, groups)) - truth)).toBeLessThan(0.1 * truth);
  }
});

it('learns of one pair, and of the layers in it, from that pair', () => {
  const candidates = pairsOf(12);
  const [a, b, c, far] = [candidates[1]!, candidates[5]!, candidates[6]!, candidates[9]!];
  const measured = [{ plan: planOf(12, [a, b]), cost: a.cost + b.cost + 0.05 }];
  const fit = fitInteractions({ layers: 12, candidates, cost, measured });
  const rho = (x: Group, y: Group) => fit.between(x, y) / Math.sqrt(x.cost * y.cost);
  expect(fit.predict(measured[0]!.plan)).toBeCloseTo(measured[0]!.cost, 2);
  expect(fit.between(b, a)).toBe(fit.between(a, b));
  // The pair itself, then one that shares layers with it, then any.
  expect(rho(a, b)).toBeGreaterThan(rho(a, c));
  expect(rho(a, c)).toBeGreaterThan(rho(candidates[3]!, far));
  expect(rho(candidates[3]!, far)).toBeGreaterThan(0);
});

it('comes near every measurement, whatever interacts', () => {
  fc.assert(
    fc.property(
      instances(fc.double({ min: 0.5, max: 2, noNaN: true }), 7),
      fc.nat(),
      ({ layers, groups }, seed) => {
        // Interactions no larger than the costs, so that measured costs stay positive.
        const interaction = hiddenInteraction(seed, 0.3);
        const measured = allPlans(layers, groups).map((plan) => ({
          plan: planOf(layers, plan),
          cost: totalOf(plan, interaction),
        }));
        const fit = fitInteractions({ layers, candidates: groups, cost, measured });
        for (const { plan, cost } of measured) expect(Math.abs(fit.predict(plan) - cost)).toBeLessThan(0.25);
      },
    ),
    { numRuns: 30 },
  );
});

it('does not depend on the order of the measurements, and scales with the unit', () => {
  const candidates = pairsOf(10);
  const interaction = hiddenInteraction(3, 0.1);
  const measured = allPlans(10, candidates)
    .filter((_, i) => i % 9 === 0)
    .map((groups) => ({ plan: planOf(10, groups), cost: totalOf(groups, interaction) }));
  const fit = fitInteractions({ layers: 10, candidates, cost, measured });
  const turned = fitInteractions({
    layers: 10,
    candidates: candidates.toReversed(),
    cost,
    measured: measured.toReversed(),
  });
  const scaled = fitInteractions({
    layers: 10,
    candidates,
    cost: (group) => 1000 * group.cost,
    measured: measured.map(({ plan, cost }) => ({ plan, cost: 1000 * cost })),
  });
  for (const a of candidates) {
    for (const b of candidates) {
      expect(turned.between(a, b)).toBe(fit.between(a, b));
      expect(scaled.between(a, b)).toBeCloseTo(1000 * fit.between(a, b), 6);
    }
  }
});

it('stays finite with costs of 0 and below, and with a plan measured twice', () => {
  const candidates: Group[] = [
    { layers: [0, 1], bypass: 0, cost: 0 },
    { layers: [2, 3], bypass: 0, cost: -0.1 },
    { layers: [4, 5], bypass: 0, cost: 0.3 },
  ];
  const plan = planOf(6, candidates);
  for (const groups of [candidates, candidates.map((group) => ({ ...group, cost: 0 }))]) {
    const fit = fitInteractions({
      layers: 6,
      candidates: groups,
      cost,
      measured: [
        { plan, cost: 0 },
        { plan, cost: 0.5 },
        { plan, cost: 0.5 },
      ],
    });
    expect(Number.isFinite(fit.predict(plan))).toBe(true);
  }
});

it('refuses what is not of the candidates or no number', () => {
  const candidates = pairsOf(6);
  const other = planOf(6, [{ layers: [0, 1, 2], bypass: 0, cost: 1 }]);
  const fit = fitInteractions({ layers: 6, candidates, cost, measured: [] });
  const fault = (path: string) => expect.objectContaining({ code: 'PLAN_PARAMETERS', path });
  expect(() => fit.predict(other)).toThrowError(fault('plan'));
  expect(() => fit.between(candidates[0]!, other.groups[0]!)).toThrowError(fault('b'));
  for (const [path, entry] of [
    ['measured[0].plan', { plan: other, cost: 1 }],
    ['measured[0].cost', { plan: planOf(6, []), cost: Number.NaN }],
  ] as const) {
    expect(() => fitInteractions({ layers: 6, candidates, cost, measured: [entry] })).toThrowError(
      fault(path),
    );
  }
});

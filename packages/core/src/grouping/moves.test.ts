import fc from 'fast-check';
import { expect, it } from 'vitest';
import { candidateSet, compareSelections, type Selection } from './candidates.js';
import { neighbours } from './moves.js';
import { allPlans, type Group, instances, nameOf, stepsOf } from './testing/brute-force.js';

const cost = (group: Group) => group.cost;
const group = (...layers: number[]): Group => ({ layers, bypass: 0, cost: 1 });

/** Neighbours of the plan of some groups, as lists of runs. */
function next(layers: number, candidates: Group[], plan: readonly Group[]): string[] {
  const set = candidateSet(layers, candidates, cost);
  const ids = plan.map((one) => set.all.find((other) => nameOf(other.group) === nameOf(one))!.id);
  return neighbours(set, ids).map((selection) =>
    selection.map((id) => set.all[id]!.group.layers.join('+')).join(' '),
  );
}

it('shifts, moves and re-links a group', () => {
  const bypassed: Group = { layers: [1, 2], bypass: 1, cost: 1 };
  const candidates = [group(0, 1), group(1, 2), bypassed, group(2, 3), group(5, 6), group(4, 5, 6)];
  expect(next(7, candidates, [group(1, 2)])).toEqual(['0+1', '1+2', '2+3', '5+6']);
  expect(next(7, candidates, [group(1, 2), group(5, 6)])).toEqual(['0+1 5+6', '1+2 5+6', '2+3 5+6', '4+5+6']);
});

it('merges two groups and splits another, and the other way round', () => {
  const candidates = [
    group(0, 1),
    group(2, 3),
    group(0, 1, 2, 3),
    group(5, 6),
    group(7, 8),
    group(5, 6, 7, 8),
  ];
  const merged = [group(0, 1, 2, 3), group(5, 6), group(7, 8)];
  const split = [group(0, 1), group(2, 3), group(5, 6, 7, 8)];
  expect(next(9, candidates, merged)).toContain('0+1 2+3 5+6+7+8');
  expect(next(9, candidates, split)).toContain('0+1+2+3 5+6 7+8');
});

it('lets one group grow while another shrinks or is dissolved', () => {
  const candidates = [group(0, 1), group(0, 1, 2), group(4, 5), group(4, 5, 6), group(5, 6)];
  expect(next(7, candidates, [group(0, 1), group(4, 5, 6)])).toEqual(['0+1+2 4+5', '0+1+2 5+6']);
  expect(next(7, candidates, [group(0, 1), group(4, 5)])).toEqual(['0+1 5+6', '0+1+2', '4+5+6']);
});

it('keeps the number of steps, gives valid plans once and in order, and can always be undone', () => {
  fc.assert(
    fc.property(instances(fc.constant(1), 8), fc.nat(), ({ layers, groups }, at) => {
      const plans = allPlans(layers, groups);
      const plan = plans[at % plans.length]!;
      const set = candidateSet(layers, groups, cost);
      const selectionOf = (one: readonly Group[]): Selection =>
        one.map((member) => set.all.find((other) => nameOf(other.group) === nameOf(member))!.id);
      const start = selectionOf(plan);
      const same = new Set(
        plans
          .filter((other) => stepsOf(layers, other) === stepsOf(layers, plan))
          .map((other) => selectionOf(other).join()),
      );
      const found = neighbours(set, start);
      expect(found).toEqual(found.toSorted(compareSelections));
      expect(new Set(found.map((one) => one.join())).size).toBe(found.length);
      for (const one of found) {
        expect(same).toContain(one.join());
        expect(one.join()).not.toBe(start.join());
        expect(neighbours(set, one).map((other) => other.join())).toContain(start.join());
      }
    }),
    { numRuns: 60 },
  );
});

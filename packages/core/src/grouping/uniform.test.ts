import fc from 'fast-check';
import { expect, it } from 'vitest';
import { parsePlan } from '../plan/parse.js';
import { sequentialSteps } from '../plan/steps.js';
import { uniformPlan } from './uniform.js';

const code = expect.objectContaining({ name: 'PlanError', code: 'PLAN_PARAMETERS' });

it('gives the plans of the paper', () => {
  // LLaMA-7B, P2 S12 E30: github.com/Photooon/CQIL, train/models/LLaMA-7B/config.json
  const plan = uniformPlan({ layers: 32, groupSize: 2, start: 12, end: 30, bypass: 1 });
  expect(plan.groups.map((group) => group.layers)).toEqual([
    [12, 13],
    [14, 15],
    [16, 17],
    [18, 19],
    [20, 21],
    [22, 23],
    [24, 25],
    [26, 27],
    [28, 29],
  ]);
  expect(plan.groups.every((group) => group.bypass === 1)).toBe(true);
  expect(sequentialSteps(plan)).toBe(23);
});

it('ends with a shorter group, and with no group where one layer is left', () => {
  const groups = (end: number) =>
    uniformPlan({ layers: 12, groupSize: 4, start: 1, end }).groups.map((group) => group.layers);
  expect(groups(8)).toEqual([
    [1, 2, 3, 4],
    [5, 6, 7],
  ]);
  expect(groups(6)).toEqual([[1, 2, 3, 4]]);
  expect(groups(2)).toEqual([]);
});

it('covers S to E once, in order, with valid groups, for all parameters', () => {
  const parameters = fc.integer({ min: 1, max: 60 }).chain((layers) =>
    fc.record({
      layers: fc.constant(layers),
      groupSize: fc.integer({ min: 1, max: 70 }),
      range: fc.tuple(fc.nat({ max: layers }), fc.nat({ max: layers })),
      bypass: fc.oneof(fc.nat({ max: 9 }), fc.constant('full' as const)),
    }),
  );
  fc.assert(
    fc.property(parameters, ({ layers, groupSize, range, bypass }) => {
      const [start, end] = [Math.min(...range), Math.max(...range)];
      const plan = uniformPlan({ layers, groupSize, start, end, bypass });
      expect(parsePlan(plan, { layers })).toEqual(plan);
      const grouped = plan.groups.flatMap((group) => group.layers);
      const depth = end - start;
      const alone = groupSize === 1 ? depth : depth % groupSize === 1 ? 1 : 0;
      expect(grouped).toEqual(Array.from({ length: depth - alone }, (_, i) => start + i));
      for (const group of plan.groups.slice(0, -1)) expect(group.layers).toHaveLength(groupSize);
      expect(sequentialSteps(plan)).toBe(layers - depth + Math.ceil(depth / groupSize));
    }),
  );
});

it('names a wrong parameter', () => {
  const good = { layers: 8, groupSize: 2, start: 2, end: 6, bypass: 0 } as const;
  for (const [path, wrong] of [
    ['layers', { layers: 0 }],
    ['layers', { layers: 2 ** 63 }],
    ['groupSize', { groupSize: 0 }],
    ['groupSize', { groupSize: 1.5 }],
    ['start', { start: -1 }],
    ['start', { start: Number.NaN }],
    ['end', { end: 1 }],
    ['end', { end: 9 }],
    ['bypass', { bypass: -1 }],
    ['bypass', { bypass: 1e308 }],
    ['bypass', { bypass: 'all' as 'full' }],
  ] as const) {
    expect(() => uniformPlan({ ...good, ...wrong })).toThrowError(code);
    expect(() => uniformPlan({ ...good, ...wrong })).toThrowError(expect.objectContaining({ path }));
  }
});

import fc from 'fast-check';
import { expect, it } from 'vitest';
import { parsePlan } from '../plan/parse.js';
import { sequentialSteps } from '../plan/steps.js';
import { evenlySpreadPlan } from './evenly.js';

it('spreads groups over the depth', () => {
  const groups = (steps: number) =>
    evenlySpreadPlan({ layers: 10, steps, start: 1, end: 9 }).groups.map((group) => group.layers);
  expect(groups(10)).toEqual([]);
  expect(groups(8)).toEqual([
    [3, 4],
    [7, 8],
  ]);
  expect(groups(6)).toEqual([
    [1, 2],
    [3, 4],
    [5, 6],
    [7, 8],
  ]);
});

it('meets the number of steps with valid groups, for all parameters', () => {
  const parameters = fc.integer({ min: 1, max: 40 }).chain((layers) =>
    fc.record({
      layers: fc.constant(layers),
      groupSize: fc.integer({ min: 2, max: 9 }),
      range: fc.tuple(fc.nat({ max: layers }), fc.nat({ max: layers })),
      share: fc.nat({ max: 100 }),
    }),
  );
  fc.assert(
    fc.property(parameters, ({ layers, groupSize, range, share }) => {
      const [start, end] = [Math.min(...range), Math.max(...range)];
      const fewest = layers - (end - start) + Math.ceil((end - start) / groupSize);
      const steps = fewest + Math.round(((layers - fewest) * share) / 100);
      const plan = evenlySpreadPlan({ layers, steps, groupSize, start, end });
      expect(parsePlan(plan, { layers })).toEqual(plan);
      expect(sequentialSteps(plan)).toBe(steps);
      for (const group of plan.groups) {
        expect(group.layers.length).toBeLessThanOrEqual(groupSize);
        expect(group.layers[0]).toBeGreaterThanOrEqual(start);
        expect(group.layers.at(-1)).toBeLessThan(end);
      }
    }),
  );
});

it('refuses fewer steps than can be reached', () => {
  const code = expect.objectContaining({ code: 'PLAN_PARAMETERS', path: 'steps' });
  for (const steps of [4, 11, 7.5, Number.NaN]) {
    expect(() => evenlySpreadPlan({ layers: 10, steps })).toThrowError(code);
  }
});

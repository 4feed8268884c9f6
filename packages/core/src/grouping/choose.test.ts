import fc from 'fast-check';
import { expect, it } from 'vitest';
import { sequentialSteps } from '../plan/steps.js';
import { choosePlan } from './choose.js';
import { runsOf, uniformPlan } from './uniform.js';

/** Similarity that falls by `step[k]` between the inputs of layers k and k + 1. */
function falling(steps: readonly number[]): number[][] {
  const depth = [0];
  for (const step of steps) depth.push(depth.at(-1)! + step);
  return depth.map((a) => depth.map((b) => 1 - Math.abs(a - b)));
}

it('groups the run of layers whose inputs are alike', () => {
  const similarity = falling([0.5, 0.3, 0.01, 0.02, 0.01, 0.02, 0.4, 0.5]);
  const { plan, uniform, lowest } = choosePlan({ layers: 8, similarity, threshold: 0.95 });
  expect(uniform).toEqual({ groupSize: 3, start: 2, end: 7 });
  expect(plan.groups).toEqual([
    { layers: [2, 3, 4], bypass: 0 },
    { layers: [5, 6], bypass: 0 },
  ]);
  expect(lowest).toBeCloseTo(0.97, 12);
});

it('compares each member with the first, whose input it reads', () => {
  const similarity = falling([0.04, 0.04, 0.04, 1]);
  const chosen = (threshold: number) => choosePlan({ layers: 4, similarity, threshold }).plan.groups;
  expect(chosen(0.95).map((group) => group.layers)).toEqual([
    [0, 1],
    [2, 3],
  ]);
  expect(chosen(0.87).map((group) => group.layers)).toEqual([[0, 1, 2, 3]]);
});

it('prefers fewer steps, then higher similarity, then smaller groups, then earlier layers', () => {
  expect(
    choosePlan({ layers: 4, similarity: falling([0.1, 0.01, 0.1, 1]), threshold: 0.85, groupSizes: [2] })
      .uniform,
  ).toEqual({ groupSize: 2, start: 0, end: 4 });
  expect(
    choosePlan({ layers: 3, similarity: falling([0.1, 0.01, 0.5]), threshold: 0.85, groupSizes: [2] })
      .uniform,
  ).toEqual({ groupSize: 2, start: 1, end: 3 });
  const same = Array.from({ length: 6 }, () => new Array<number>(6).fill(1));
  expect(choosePlan({ layers: 2, similarity: same, threshold: 1, groupSizes: [4, 2, 3] }).uniform).toEqual({
    groupSize: 2,
    start: 0,
    end: 2,
  });
  expect(choosePlan({ layers: 3, similarity: same, threshold: 1, groupSizes: [2] }).uniform?.start).toBe(0);
});

it('gives a plan without groups where nothing is alike', () => {
  const choice = choosePlan({ layers: 3, similarity: falling([1, 1, 1]), threshold: 0.9 });
  expect(choice).toMatchObject({ uniform: undefined, lowest: 1, mean: 1, plan: { groups: [] } });
});

it('keeps to the layers it may group', () => {
  const same = Array.from({ length: 9 }, () => new Array<number>(9).fill(1));
  const { uniform } = choosePlan({ layers: 8, similarity: same, threshold: 1, from: 2, to: 6 });
  expect(uniform).toEqual({ groupSize: 4, start: 2, end: 6 });
});

it('is the best of all uniform plans that pass, by exhaustive search', () => {
  const matrices = fc
    .integer({ min: 1, max: 8 })
    .chain((n) =>
      fc.array(fc.array(fc.nat({ max: 3 }), { minLength: n, maxLength: n }), { minLength: n, maxLength: n }),
    );
  fc.assert(
    fc.property(matrices, fc.integer({ min: 0, max: 3 }), (similarity, threshold) => {
      const layers = similarity.length;
      const choice = choosePlan({ layers, similarity, threshold, groupSizes: [2, 3] });
      let fewest = layers;
      for (const groupSize of [2, 3]) {
        for (let start = 0; start < layers; start++) {
          for (let end = start; end <= layers; end++) {
            const passes = runsOf(start, end, groupSize).every((run) =>
              run.every((layer) => layer === run[0] || similarity[run[0]!]![layer]! >= threshold),
            );
            if (passes)
              fewest = Math.min(fewest, sequentialSteps(uniformPlan({ layers, groupSize, start, end })));
          }
        }
      }
      expect(sequentialSteps(choice.plan)).toBe(fewest);
      for (const group of choice.plan.groups) {
        for (const layer of group.layers.slice(1)) {
          expect(similarity[group.layers[0]!]![layer]).toBeGreaterThanOrEqual(threshold);
        }
      }
      expect(choosePlan({ layers, similarity, threshold, groupSizes: [3, 2] })).toEqual(choice);
    }),
  );
});

it('refuses a matrix or parameters that make no sense', () => {
  const good = { layers: 2, similarity: falling([0.1]), threshold: 0.5 };
  const matrix = expect.objectContaining({ name: 'MetricError', code: 'MATRIX_SHAPE' });
  expect(() => choosePlan({ ...good, layers: 3 })).toThrowError(matrix);
  expect(() => choosePlan({ ...good, similarity: [[1], [1]] })).toThrowError(matrix);
  expect(() => choosePlan({ ...good, similarity: falling([Number.NaN]) })).toThrowError(matrix);
  const parameters = expect.objectContaining({ name: 'PlanError', code: 'PLAN_PARAMETERS' });
  expect(() => choosePlan({ ...good, threshold: Number.NaN })).toThrowError(parameters);
  expect(() => choosePlan({ ...good, groupSizes: [1] })).toThrowError(parameters);
  expect(() => choosePlan({ ...good, from: 3 })).toThrowError(parameters);
});

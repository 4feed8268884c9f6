import { expect, it } from 'vitest';
import { effectiveBypass, planSteps, sequentialSteps } from './steps.js';
import type { Plan } from './types.js';

const plan: Plan = {
  version: 1,
  layers: 7,
  groups: [
    { layers: [1, 2], bypass: 5 },
    { layers: [3, 4, 5], bypass: 'full' },
  ],
};

it('lists what runs after what', () => {
  expect(planSteps(plan)).toEqual([[0], [1, 2], [3, 4, 5], [6]]);
  expect(planSteps({ version: 1, layers: 2, groups: [] })).toEqual([[0], [1]]);
});

it('counts steps', () => {
  expect(sequentialSteps(plan)).toBe(4);
  expect(sequentialSteps(plan)).toBe(planSteps(plan).length);
});

it('caps the bypass at what a group of its size can use', () => {
  expect(plan.groups.map(effectiveBypass)).toEqual([1, 'full']);
  expect(effectiveBypass({ layers: [1, 2, 3], bypass: 1 })).toBe(1);
});

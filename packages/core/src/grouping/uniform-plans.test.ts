import fc from 'fast-check';
import { expect, it } from 'vitest';
import { effectiveBypass, sequentialSteps } from '../plan/steps.js';
import type { Plan } from '../plan/types.js';
import { uniformPlan } from './uniform.js';
import { uniformPlans } from './uniform-plans.js';

/** A plan by what it means. */
const meaning = (plan: Plan) =>
  plan.groups.map((group) => `${group.layers.join('+')}:${effectiveBypass(group)}`).join(' ');

it('lists all starts, sizes and distances of a number of steps', () => {
  const plans = uniformPlans({ layers: 6, groupSizes: [3, 2], bypasses: ['full', 0], steps: 4, to: 5 });
  expect(plans.map(meaning)).toEqual([
    '0+1:0 2+3:0',
    '0+1:full 2+3:full',
    '1+2:0 3+4:0',
    '1+2:full 3+4:full',
    '0+1+2:0',
    '0+1+2:full',
    '1+2+3:0',
    '1+2+3:full',
    '2+3+4:0',
    '2+3+4:full',
  ]);
  expect(plans[0]!.provenance).toEqual({ method: 'uniform', groupSize: 2, start: 0, end: 4, bypass: 0 });
});

it('is what trying all P, S, E and D gives', () => {
  fc.assert(
    fc.property(
      fc
        .integer({ min: 2, max: 12 })
        .chain((layers) => fc.tuple(fc.constant(layers), fc.integer({ min: 1, max: layers }))),
      fc.uniqueArray(fc.integer({ min: 2, max: 6 }), { minLength: 1 }),
      fc.uniqueArray(fc.constantFrom(0, 1, 2, 5, 'full' as const), { minLength: 1 }),
      ([layers, steps], groupSizes, bypasses) => {
        const expected = new Set<string>();
        for (const groupSize of groupSizes) {
          for (const bypass of bypasses) {
            for (let start = 0; start <= layers; start++) {
              for (let end = start; end <= layers; end++) {
                const plan = uniformPlan({ layers, groupSize, start, end, bypass });
                if (sequentialSteps(plan) === steps) expected.add(meaning(plan));
              }
            }
          }
        }
        const plans = uniformPlans({ layers, groupSizes, bypasses, steps });
        expect(plans.map(meaning).sort()).toEqual([...expected].sort());
      },
    ),
  );
});

it('names a wrong parameter', () => {
  const good = { layers: 8, steps: 6 };
  for (const [path, wrong] of [
    ['layers', { layers: 0 }],
    ['steps', { steps: 9 }],
    ['steps', { steps: 0 }],
    ['groupSizes', { groupSizes: [1] }],
    ['bypasses', { bypasses: [-1] }],
    ['from', { from: 9 }],
    ['to', { from: 4, to: 3 }],
  ] as const) {
    const fault = expect.objectContaining({ code: 'PLAN_PARAMETERS', path });
    expect(() => uniformPlans({ ...good, ...wrong })).toThrowError(fault);
  }
});

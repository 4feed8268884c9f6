import fc from 'fast-check';
import { expect, it } from 'vitest';
import { uniformPlan } from '../grouping/uniform.js';
import { parsePlan } from './parse.js';
import { stringifyPlan } from './stringify.js';
import type { PlanProvenance } from './types.js';

it('is readable, one group a line', () => {
  const plan = uniformPlan({ layers: 30, groupSize: 2, start: 12, end: 16, bypass: 1 });
  expect(stringifyPlan(plan)).toBe(`{
  "version": 1,
  "layers": 30,
  "groups": [
    { "layers": [12, 13], "bypass": 1 },
    { "layers": [14, 15], "bypass": 1 }
  ],
  "provenance": { "bypass": 1, "end": 16, "groupSize": 2, "method": "uniform", "start": 12 }
}
`);
});

it('gives the same bytes for the same plan, however it was put together', () => {
  const a = parsePlan(
    '{"version":1,"layers":6,"groups":[{"layers":[0,1],"bypass":0},{"bypass":"full","layers":[3,4]}],' +
      '"provenance":{"tool":"t","b":{"y":[{"q":1,"p":2}],"x":2}}}',
  );
  const b = parsePlan(
    '{"provenance":{"b":{"x":2,"y":[{"p":2,"q":1}]},"tool":"t"},"groups":[{"layers":[3,4],"bypass":"full"},' +
      '{"bypass":0,"layers":[0,1]}],"layers":6,"version":1}',
  );
  expect(stringifyPlan(a)).toBe(stringifyPlan(b));
});

it('is read back as the same plan', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 2, max: 40 }),
      fc.integer({ min: 1, max: 6 }),
      fc.oneof(fc.nat({ max: 5 }), fc.constant('full' as const)),
      fc.dictionary(
        fc.stringMatching(/^[a-z]{1,8}\d$/),
        fc.jsonValue({ maxDepth: 3 }).filter((value) => !JSON.stringify(value).includes('__proto__')),
      ),
      (layers, groupSize, bypass, extra) => {
        const uniform = uniformPlan({ layers, groupSize, bypass });
        // -0 is written as 0.
        const provenance = JSON.parse(JSON.stringify({ ...uniform.provenance, ...extra })) as PlanProvenance;
        const plan = { ...uniform, provenance };
        const text = stringifyPlan(plan);
        expect(parsePlan(text)).toEqual(plan);
        expect(stringifyPlan(parsePlan(text))).toBe(text);
      },
    ),
  );
});

it('makes no text of a plan that is not valid', () => {
  const code = expect.objectContaining({ code: 'PLAN_OVERLAP' });
  const groups = [
    { layers: [0, 1], bypass: 0 },
    { layers: [1, 2], bypass: 0 },
  ];
  expect(() => stringifyPlan({ version: 1, layers: 4, groups })).toThrowError(code);
});

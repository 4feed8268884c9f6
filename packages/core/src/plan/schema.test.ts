import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { z } from 'zod';
import { uniformPlan } from '../grouping/uniform.js';
import { planJsonSchema } from './schema.js';
import { planSchemaText } from './schema-file.js';

it('is published as it is: run `npm run schema -w @cqil/core` after a change', () => {
  expect(readFileSync(new URL('../../plan.schema.json', import.meta.url), 'utf8')).toBe(planSchemaText());
});

it('accepts plans, and refuses what one field alone can tell', () => {
  const schema = z.fromJSONSchema(planJsonSchema() as Parameters<typeof z.fromJSONSchema>[0]);
  const plan = uniformPlan({ layers: 30, groupSize: 3, start: 3, end: 20, bypass: 'full' });
  expect(schema.safeParse(plan).success).toBe(true);
  expect(schema.safeParse({ version: 1, layers: 3, groups: [] }).success).toBe(true);
  for (const wrong of [
    {},
    { ...plan, version: 2 },
    { ...plan, layers: 0 },
    { ...plan, groups: [{ layers: [1], bypass: 0 }] },
    { ...plan, groups: [{ layers: [1, 2], bypass: 'some' }] },
    { ...plan, groups: [{ layers: [1, 2], bypass: -1 }] },
    { ...plan, groups: [{ layers: [1, 2] }] },
    { ...plan, extra: true },
  ]) {
    expect(schema.safeParse(wrong).success).toBe(false);
  }
});

import { parsePlan } from './parse.js';
import { printJson } from './print.js';
import type { Plan } from './types.js';

/**
 * A plan as JSON text, with a newline at the end. Equal plans give equal bytes: fields in the format's order,
 * provenance with its keys sorted.
 *
 * @throws PlanError where the plan is not valid; no text is made of it.
 */
export function stringifyPlan(plan: Plan): string {
  const { version, layers, groups, provenance } = parsePlan(plan);
  const document = {
    version,
    layers,
    groups: groups.map((group) => ({
      layers: group.layers,
      bypass: group.bypass,
      ...(group.form === undefined ? {} : { form: group.form }),
    })),
    ...(provenance === undefined ? {} : { provenance: sortKeys(provenance) }),
  };
  // The document itself is always spread out, however short: one line a field is what people look for.
  const fields = Object.entries(document).map(
    ([key, value]) => `  ${JSON.stringify(key)}: ${printJson(value, '  ')}`,
  );
  return `{\n${fields.join(',\n')}\n}\n`;
}

function sortKeys(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sortKeys);
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
  return Object.fromEntries(entries.map(([key, field]) => [key, sortKeys(field)]));
}

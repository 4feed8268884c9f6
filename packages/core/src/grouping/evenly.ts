import { PlanError } from '../errors.js';
import { MAX_LAYERS } from '../plan/schema.js';
import type { Bypass, Plan, PlanGroup } from '../plan/types.js';
import { checkBypass, checkWhole } from './uniform.js';

/** What `evenlySpreadPlan` spreads. */
export interface EvenlySpreadOptions {
  readonly layers: number;
  /** Sequential steps the plan shall have. */
  readonly steps: number;
  /** P: layers in a group (default 2). One group is smaller where the number of steps asks for it. */
  readonly groupSize?: number | undefined;
  /** First layer that may be grouped (default 0). */
  readonly start?: number | undefined;
  /** One past the last layer that may be grouped (default `layers`). */
  readonly end?: number | undefined;
  /** D of all groups (default 0). */
  readonly bypass?: Bypass | undefined;
}

/**
 * Groups spread evenly over the depth, as many as a number of sequential steps asks for: the layer choice of
 * Unified Layer Skipping (arXiv 2404.06954), which keeps the remaining steps at even distances, with grouping in
 * place of skipping.
 *
 * @throws PlanError `PLAN_PARAMETERS` where a parameter is wrong or so few steps cannot be reached.
 */
export function evenlySpreadPlan(options: EvenlySpreadOptions): Plan {
  const { layers, steps, groupSize = 2, start = 0, end = layers, bypass = 0 } = options;
  checkWhole('layers', layers, 1, MAX_LAYERS);
  checkWhole('groupSize', groupSize, 2, MAX_LAYERS);
  checkWhole('start', start, 0, layers);
  checkWhole('end', end, start, layers);
  checkBypass(bypass);
  const depth = end - start;
  const fewest = layers - depth + Math.ceil(depth / groupSize);
  if (!Number.isSafeInteger(steps) || steps < fewest || steps > layers) {
    throw new PlanError('PLAN_PARAMETERS', 'so many steps cannot be reached', {
      path: 'steps',
      expected: `a whole number from ${fewest} to ${layers}`,
      found: String(steps),
      hint: 'Group more layers, or in larger groups.',
    });
  }
  const saved = layers - steps;
  const count = Math.ceil(saved / (groupSize - 1));
  // Steps within [start, end): `count` of them are groups, at even distances.
  const units = depth - saved;
  const groups: PlanGroup[] = [];
  let layer = start;
  for (let unit = 0; unit < units; unit++) {
    const isGroup = Math.floor(((unit + 1) * count) / units) > Math.floor((unit * count) / units);
    const isLast = groups.length === count - 1;
    // The last group takes what full ones would overshoot.
    const size = !isGroup ? 1 : isLast ? saved - (count - 1) * (groupSize - 1) + 1 : groupSize;
    if (size > 1) groups.push({ layers: Array.from({ length: size }, (_, i) => layer + i), bypass });
    layer += size;
  }
  return {
    version: 1,
    layers,
    groups,
    provenance: { method: 'evenly spread', steps, groupSize, start, end, bypass },
  };
}

import { MAX_LAYERS } from '../plan/schema.js';
import type { Bypass, Plan } from '../plan/types.js';
import { groupKey } from './candidates.js';
import { checkBypass, checkWhole, uniformPlan } from './uniform.js';

/** Which of the paper's plans are wanted. */
export interface UniformPlansOptions {
  readonly layers: number;
  /** P, the group sizes (default 2, 3 and 4). */
  readonly groupSizes?: readonly number[] | undefined;
  /** D, the bypass distances (default 0). */
  readonly bypasses?: readonly Bypass[] | undefined;
  /** Sequential steps that the plans have. */
  readonly steps: number;
  /** Layers before this one stay alone (default 0). */
  readonly from?: number | undefined;
  /** This layer and those after it stay alone (default `layers`). */
  readonly to?: number | undefined;
}

/**
 * All of the paper's uniform plans (P-D-S-E, see `uniformPlan`) that have exactly so many sequential steps, for
 * scanning them. Plans that mean the same come once, and E is always one past a layer that is really grouped.
 *
 * @returns by P, then S, then D ("full" last); empty where these group sizes have no such plan.
 * @throws PlanError `PLAN_PARAMETERS`
 */
export function uniformPlans(options: UniformPlansOptions): Plan[] {
  const { layers, groupSizes = [2, 3, 4], bypasses = [0], steps, from = 0 } = options;
  const to = options.to ?? layers;
  checkWhole('layers', layers, 1, MAX_LAYERS);
  checkWhole('steps', steps, 1, layers);
  checkWhole('from', from, 0, layers);
  checkWhole('to', to, from, layers);
  for (const size of groupSizes) checkWhole('groupSizes', size, 2, MAX_LAYERS);
  for (const bypass of bypasses) checkBypass(bypass, 'bypasses');
  const sizes = [...new Set(groupSizes)].sort((a, b) => a - b);
  const distances = [...new Set(bypasses)].sort((a, b) => rank(a) - rank(b));

  const plans = new Map<string, Plan>();
  for (const groupSize of sizes) {
    const depth = depthThatSaves(layers - steps, groupSize);
    for (let start = from; start + depth <= to; start++) {
      for (const bypass of distances) {
        const plan = uniformPlan({ layers, groupSize, start, end: start + depth, bypass });
        const key = plan.groups.map(groupKey).join();
        if (!plans.has(key)) plans.set(key, plan);
      }
    }
  }
  return [...plans.values()];
}

/** How many layers groups of `size` must cover to save so many steps: full groups, and a shorter one for the rest. */
function depthThatSaves(saved: number, size: number): number {
  const rest = saved % (size - 1);
  return Math.floor(saved / (size - 1)) * size + (rest === 0 ? 0 : rest + 1);
}

function rank(bypass: Bypass): number {
  return bypass === 'full' ? Number.MAX_SAFE_INTEGER : bypass;
}

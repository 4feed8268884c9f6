import type { Bypass, Plan, PlanGroup } from './types.js';

/**
 * A group's bypass without what does nothing: no layer of a group of p has more than p − 1 before it, so a larger
 * distance means p − 1 ("causal": every earlier attention output reaches every later FFN).
 */
export function effectiveBypass(group: PlanGroup): Bypass {
  return group.bypass === 'full' ? 'full' : Math.min(group.bypass, group.layers.length - 1);
}

/**
 * The order in which layers run: each step is a group, or one layer that is in none.
 *
 * @example
 * planSteps({ version: 1, layers: 4, groups: [{ layers: [1, 2], bypass: 0 }] }); // [[0], [1, 2], [3]]
 */
export function planSteps(plan: Plan): number[][] {
  const groupAt = new Map(plan.groups.map((group) => [group.layers[0]!, group]));
  const steps: number[][] = [];
  for (let layer = 0; layer < plan.layers; ) {
    const step = groupAt.get(layer)?.layers ?? [layer];
    steps.push([...step]);
    layer += step.length;
  }
  return steps;
}

/** How many steps run one after the other: a group is one, and so is a layer in no group. */
export function sequentialSteps(plan: Plan): number {
  return plan.groups.reduce((steps, group) => steps - (group.layers.length - 1), plan.layers);
}

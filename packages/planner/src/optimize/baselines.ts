import { type CandidateCost, effectiveBypass, type Plan, type PlanGroup, uniformPlans } from '@cqil/core';

/** A plan that others would have made, or layers that they would have left out. */
export interface Baseline {
  readonly id: string;
  readonly name: string;
  readonly change: { readonly plan: Plan } | { readonly skip: readonly number[] };
}

/** Uniform plans that are measured as a whole before the best is taken. */
const MEASURED = 3;

/**
 * The uniform plans of the paper that promise most at a number of steps, by the sum of what their groups cost alone:
 * to measure as a whole. Layer Parallelism's are those of pairs with the full bypass.
 */
export function uniformProposals(
  layers: number,
  steps: number,
  candidates: readonly CandidateCost[],
): { readonly paper: readonly Plan[]; readonly parallel: readonly Plan[] } {
  const costs = new Map(candidates.map((candidate) => [keyOf(candidate), candidate.kl]));
  const cost = (plan: Plan) =>
    plan.groups.reduce((sum, group) => sum + (costs.get(keyOf(group)) ?? Number.NaN), 0);
  const best = (plans: readonly Plan[]) =>
    plans
      .map((plan) => ({ plan, cost: cost(plan) }))
      .filter((one) => one.plan.groups.length > 0 && Number.isFinite(one.cost))
      .sort((a, b) => a.cost - b.cost)
      .slice(0, MEASURED)
      .map(({ plan }) => plan);
  return {
    paper: [2, 3, 4].flatMap((size) =>
      best(uniformPlans({ layers, groupSizes: [size], bypasses: [0, 1, 2, 3], steps })),
    ),
    parallel: best(uniformPlans({ layers, groupSizes: [2], bypasses: ['full'], steps })),
  };
}

function keyOf(group: PlanGroup): string {
  return `${group.layers.join()}/${effectiveBypass(group)}`;
}

/**
 * Layers to leave out so that a number of steps is left:
 * - every other layer before the last two, as late as they fit
 * - those of the lowest block influence (ShortGPT, arXiv 2403.03853)
 * - evenly spread, the first and the last kept (Unified Layer Skipping, arXiv 2404.06954)
 *
 * The first layer is always kept.
 */
export function skipBaselines(layers: number, steps: number, blockInfluence: readonly number[]): Baseline[] {
  const count = layers - steps;
  const alternate = Array.from({ length: count }, (_, i) => layers - 3 - 2 * i).filter((layer) => layer > 0);
  const byInfluence = Array.from({ length: layers - 1 }, (_, i) => i + 1)
    .sort((a, b) => blockInfluence[a]! - blockInfluence[b]! || a - b)
    .slice(0, count);
  const even = Array.from({ length: count }, (_, i) => Math.round(((i + 1) * (layers - 1)) / (count + 1)));
  const list: [string, string, number[]][] = [
    ['skip-alternate', 'Every other layer skipped', alternate],
    ['skip-influence', 'Layers of least block influence skipped', byInfluence],
    ['skip-even', 'Layers skipped evenly', even],
  ];
  return list
    .filter(([, , skip]) => skip.length === count && new Set(skip).size === count && count > 0)
    .map(([id, name, skip]) => ({ id, name, change: { skip: skip.sort((a, b) => a - b) } }));
}

/**
 * A plan's shape for layers that are left out: each layer that stays with those that are skipped behind it, so that the
 * same recovery can be asked to make up for them.
 */
export function spansOf(layers: number, skip: readonly number[]): Plan {
  const skipped = new Set(skip);
  const groups: PlanGroup[] = [];
  for (let layer = 0; layer < layers; layer++) {
    const span = [layer];
    while (skipped.has(layer + 1)) span.push(++layer);
    if (span.length > 1) groups.push({ layers: span, bypass: 0 });
  }
  return { version: 1, layers, groups };
}

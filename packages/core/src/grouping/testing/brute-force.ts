import fc from 'fast-check';
import type { Bypass, Plan } from '../../plan/types.js';

/** A group with a cost, as the tests of the searches use it. */
export interface Group {
  readonly layers: readonly number[];
  readonly bypass: Bypass;
  readonly cost: number;
}

/** All sets of groups without overlap, each in layer order, by trying for each layer what may begin there. */
export function allPlans(layers: number, groups: readonly Group[], from = 0): Group[][] {
  if (from >= layers) return [[]];
  const plans = allPlans(layers, groups, from + 1);
  for (const group of groups) {
    if (group.layers[0] !== from) continue;
    for (const rest of allPlans(layers, groups, from + group.layers.length)) plans.push([group, ...rest]);
  }
  return plans;
}

export function stepsOf(layers: number, groups: readonly Group[]): number {
  return layers - groups.reduce((sum, group) => sum + group.layers.length - 1, 0);
}

/** Costs, then the interactions of all pairs, earlier group first. */
export function totalOf(
  groups: readonly Group[],
  interaction: (a: Group, b: Group) => number = () => 0,
): number {
  let sum = 0;
  for (const group of groups) sum += group.cost;
  for (const [i, a] of groups.entries()) for (const b of groups.slice(i + 1)) sum += interaction(a, b);
  return sum;
}

/** A group as text, so that plans can be compared and interactions kept. */
export function nameOf(group: { readonly layers: readonly number[]; readonly bypass: Bypass }): string {
  return `${group.layers.join('+')}:${group.bypass}`;
}

export function namesOf(plan: Plan): string[] {
  return plan.groups.map(nameOf);
}

/** The documented order of plans of equal cost, written as text that sorts: layers below 10, bypass below 9. */
export function orderOf(
  groups: readonly { readonly layers: readonly number[]; readonly bypass: Bypass }[],
): string {
  return groups
    .map(({ layers, bypass }) => `${layers[0]}${layers.length}${bypass === 'full' ? 9 : bypass}`)
    .join();
}

/** A hidden interaction for each pair: a number drawn from a seed, the same for the same pair. */
export function hiddenInteraction(seed: number, size: number): (a: Group, b: Group) => number {
  return (a, b) => size * (2 * noise(`${seed}/${nameOf(a)}/${nameOf(b)}`) - 1);
}

/** Models of 5 to 9 layers with some of their possible groups. */
export function instances(
  cost: fc.Arbitrary<number>,
  most = 9,
): fc.Arbitrary<{ layers: number; groups: Group[] }> {
  return fc.integer({ min: 5, max: most }).chain((layers) => {
    const possible: Omit<Group, 'cost'>[] = [];
    for (let first = 0; first < layers; first++) {
      for (let size = 2; size <= 4 && first + size <= layers; size++) {
        const run = Array.from({ length: size }, (_, i) => first + i);
        for (const bypass of [0, 1, 'full'] as const) possible.push({ layers: run, bypass });
      }
    }
    return fc.record({
      layers: fc.constant(layers),
      groups: fc
        .shuffledSubarray(possible, { minLength: 1, maxLength: 14 })
        .chain((groups) =>
          fc
            .array(cost, { minLength: groups.length, maxLength: groups.length })
            .map((costs) => groups.map((group, i): Group => ({ ...group, cost: costs[i]! }))),
        ),
    });
  });
}

/** A number from 0 to 1 that a text stands for (FNV-1a, then a finaliser that spreads its bits). */
export function noise(text: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return ((hash ^ (hash >>> 16)) >>> 0) / 2 ** 32;
}

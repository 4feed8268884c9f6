import { type CandidateSet, candidateSet } from './candidates.js';
import type { CandidateGroup } from './costs.js';

/**
 * How many plans there are, by sequential steps saved: entry s of the result. Exact up to 2^53, rounded above.
 */
export function countPlans(set: CandidateSet): number[] {
  // counts[e][s]: ways to choose disjoint candidates in layers 0 to e − 1 that save s steps.
  const counts: number[][] = [[1]];
  for (let end = 1; end <= set.layers; end++) {
    const here = [...counts[end - 1]!];
    for (const { first, saved } of set.endingAt[end]!) {
      for (const [s, ways] of counts[first]!.entries()) {
        while (here.length <= s + saved) here.push(0);
        here[s + saved]! += ways;
      }
    }
    counts.push(here);
  }
  return counts[set.layers]!;
}

/**
 * The numbers of sequential steps that plans of these candidates can have, descending from the number of layers.
 *
 * @throws PlanError `PLAN_PARAMETERS`
 */
export function reachableSteps(options: {
  readonly layers: number;
  readonly candidates: readonly CandidateGroup[];
}): number[] {
  const { layers, candidates } = options;
  return countPlans(candidateSet(layers, candidates, () => 0)).flatMap((ways, saved) =>
    ways > 0 ? [layers - saved] : [],
  );
}

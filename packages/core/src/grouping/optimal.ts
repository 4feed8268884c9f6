import { PlanError } from '../errors.js';
import type { Plan } from '../plan/types.js';
import {
  type Candidate,
  type CandidateSet,
  candidateSet,
  compareSelections,
  type RankedSelection,
  type Selection,
  toPlan,
} from './candidates.js';
import type { CandidateGroup } from './costs.js';
import { countPlans } from './counting.js';
import { checkWhole } from './uniform.js';

/** A plan and what it costs. */
export interface PlanCost {
  readonly plan: Plan;
  /** In the unit of the candidates' costs; smaller is better. */
  readonly cost: number;
}

/** What `optimalPlans` chooses from. */
export interface OptimalOptions<C extends CandidateGroup> {
  /** Number of layers of the model. */
  readonly layers: number;
  /** Any runs of neighbouring layers, one run with several bypasses included. */
  readonly candidates: readonly C[];
  /** What a candidate costs; finite, may be negative. For example `(candidate) => candidate.kl`. */
  readonly cost: (candidate: C) => number;
  /** Numbers of sequential steps that plans are wanted for (default: all that the candidates can reach). */
  readonly steps?: readonly number[] | undefined;
  /** Plans for each number of steps (default 1). */
  readonly count?: number | undefined;
}

/** The best plans with one number of sequential steps, best first. */
export interface StepPlans {
  readonly steps: number;
  readonly plans: readonly PlanCost[];
}

/**
 * The plans with the least sum of costs, for each number of sequential steps: exact, by dynamic programming over
 * layers and steps saved, with the `count` best partial plans kept in each state.
 *
 * A plan is a set of candidates without overlap. Plans of equal cost go by the first group in which they differ:
 * the earlier first layer, then the fewer layers, then the smaller bypass ("full" last) goes first.
 *
 * Costs of groups compound: what a plan costs is not the sum of what its groups cost alone. This is the lower rung;
 * see `searchPlans`.
 *
 * @returns for each number of steps, most steps first; with fewer than `count` plans where there are no more.
 * @throws PlanError `PLAN_PARAMETERS`, also for a number of steps that no plan of these candidates has.
 */
export function optimalPlans<C extends CandidateGroup>(options: OptimalOptions<C>): StepPlans[] {
  const { layers, candidates, cost, count = 1 } = options;
  checkWhole('count', count, 1, Number.MAX_SAFE_INTEGER);
  const set = candidateSet(layers, candidates, cost);
  const wanted = checkSteps(set, options.steps);
  const best = additiveSelections(set, layers - (wanted.at(-1) ?? layers), count);
  return wanted.map((steps) => ({
    steps,
    plans: best[layers - steps]!.map(({ selection, cost }) => ({
      plan: toPlan(set, selection, { method: 'least sum of costs', steps }),
      cost,
    })),
  }));
}

/** The `count` best selections by the sum of costs, by steps saved: 0 to `mostSaved`. */
export function additiveSelections(set: CandidateSet, mostSaved: number, count: number): RankedSelection[][] {
  // states[e][s]: the best of layers 0 to e − 1 that save s steps, best first.
  const states: Chain[][][] = [[[{ cost: 0, last: undefined, before: undefined }]]];
  for (let end = 1; end <= set.layers; end++) {
    const here: Chain[][] = [];
    for (let saved = 0; saved <= mostSaved; saved++) {
      const found = [...(states[end - 1]![saved] ?? [])];
      for (const candidate of set.endingAt[end]!) {
        for (const before of states[candidate.first]![saved - candidate.saved] ?? []) {
          found.push({ cost: before.cost + candidate.cost, last: candidate, before });
        }
      }
      here.push(found.sort(compareChains).slice(0, count));
    }
    states.push(here);
  }
  return Array.from({ length: mostSaved + 1 }, (_, saved) =>
    (states[set.layers]![saved] ?? []).map((partial) => ({
      selection: selectionOf(partial),
      cost: partial.cost,
    })),
  );
}

/**
 * Numbers of steps as asked for, or all that can be reached; without repetition, descending.
 *
 * @throws PlanError `PLAN_PARAMETERS` where no plan has so many.
 */
export function checkSteps(set: CandidateSet, steps: readonly number[] | undefined): number[] {
  const counts = countPlans(set);
  const reachable = counts.flatMap((ways, saved) => (ways > 0 ? [set.layers - saved] : []));
  if (steps === undefined) return reachable;
  for (const [i, value] of steps.entries()) {
    if (reachable.includes(value)) continue;
    throw new PlanError('PLAN_PARAMETERS', 'no plan of these candidates has so many sequential steps', {
      path: `steps[${i}]`,
      expected: `one of ${reachable.join(', ')}`,
      found: String(value),
    });
  }
  return [...new Set(steps)].sort((a, b) => b - a);
}

/** A partial plan as a chain from its last group to its first; partial plans share their beginnings. */
interface Chain {
  readonly cost: number;
  readonly last: Candidate | undefined;
  readonly before: Chain | undefined;
}

function compareChains(a: Chain, b: Chain): number {
  return a.cost - b.cost || compareSelections(selectionOf(a), selectionOf(b));
}

function selectionOf(partial: Chain): Selection {
  const ids: number[] = [];
  for (let at: Chain | undefined = partial; at?.last !== undefined; at = at.before) ids.push(at.last.id);
  return ids.reverse();
}

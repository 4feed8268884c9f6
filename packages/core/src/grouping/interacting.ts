import {
  type Candidate,
  type CandidateSet,
  candidateSet,
  checkCost,
  compareSelections,
  type PairMatrix,
  type RankedSelection,
  type Selection,
  scoreSelection,
  toPlan,
} from './candidates.js';
import type { CandidateGroup } from './costs.js';
import type { Delays } from './delays.js';
import { checkSteps, type PlanCost } from './optimal.js';
import { checkWhole } from './uniform.js';

/** What `interactingPlans` chooses from. */
export interface InteractingOptions<C extends CandidateGroup> {
  readonly layers: number;
  readonly candidates: readonly C[];
  /** What a candidate costs by itself. */
  readonly cost: (candidate: C) => number;
  /**
   * What two candidates without overlap cost together over the sum of both, in the same unit; of either sign.
   * Called once for each such pair, `earlier` being the one of lower layers.
   */
  readonly interaction: (earlier: C, later: C) => number;
  /** Number of sequential steps of the plans. */
  readonly steps: number;
  /** Plans wanted (default 1). */
  readonly count?: number | undefined;
  /** Most partial plans that are looked into (default 20,000). */
  readonly nodes?: number | undefined;
}

/** What `interactingPlans` found. */
export interface InteractingPlans {
  /** Best first; equal costs in the order of `optimalPlans`. */
  readonly plans: readonly PlanCost[];
  /** Whether these are the best of all; false where `nodes` ran out before that was certain. */
  readonly proven: boolean;
  /** Partial plans that were looked into. */
  readonly nodes: number;
}

/** Partial plans looked into unless the caller says otherwise: some seconds at 30 layers and 250 candidates. */
export const DEFAULT_NODES = 20_000;

/**
 * The best plans with one number of sequential steps, where a plan costs the sum of its groups' costs and of the
 * interactions of all pairs of its groups.
 *
 * Branch and bound, groups chosen from the first layer to the last. The bound of a partial plan: the interactions
 * with groups already chosen are exact, and each group to come pays at least the least that groups behind it can
 * interact with it, each group taken by itself (the bound of Gilmore and Lawler for quadratic assignment, 1962 and
 * 1963); a dynamic programme over layers and steps gives the least of that. Without interactions it is exact.
 *
 * @throws PlanError `PLAN_PARAMETERS`
 */
export function interactingPlans<C extends CandidateGroup>(options: InteractingOptions<C>): InteractingPlans {
  const { layers, candidates, cost, interaction, steps, count = 1, nodes = DEFAULT_NODES } = options;
  checkWhole('count', count, 1, Number.MAX_SAFE_INTEGER);
  checkWhole('nodes', nodes, 1, Number.MAX_SAFE_INTEGER);
  const set = candidateSet(layers, candidates, cost);
  checkSteps(set, [steps]);
  const pairs = pairMatrix(set, (a, b) => {
    const value = interaction(candidates[a.input]!, candidates[b.input]!);
    checkCost(value, `interaction of candidates[${a.input}] and candidates[${b.input}]`);
    return value;
  });
  const found = boundedSearch(set, pairs, { saved: layers - steps, count, nodes });
  return {
    plans: found.best.map(({ selection, cost }) => ({
      plan: toPlan(set, selection, { method: 'least cost with interactions', steps, proven: found.proven }),
      cost,
    })),
    proven: found.proven,
    nodes: found.nodes,
  };
}

/** The matrix of an interaction that is defined for pairs without overlap. */
export function pairMatrix(
  set: CandidateSet,
  interaction: (earlier: Candidate, later: Candidate) => number,
): PairMatrix {
  const n = set.all.length;
  const pairs = new Float64Array(n * n);
  for (const earlier of set.all) {
    for (let id = earlier.id + 1; id < n; id++) {
      const later = set.all[id]!;
      if (later.first >= earlier.end) pairs[earlier.id * n + id] = interaction(earlier, later);
    }
  }
  return pairs;
}

/** What `boundedSearch` looks for. */
interface BoundedOptions {
  /** Sequential steps that the plan saves. */
  readonly saved: number;
  readonly count: number;
  readonly nodes: number;
  /** Selections that are not wanted. */
  readonly isExcluded?: ((selection: Selection) => boolean) | undefined;
  /** Only plans that keep to this. */
  readonly delays?: Delays | undefined;
}

/** @see interactingPlans */
export function boundedSearch(
  set: CandidateSet,
  pairs: PairMatrix,
  options: BoundedOptions,
): { best: RankedSelection[]; proven: boolean; nodes: number } {
  const { layers, all, startingAt } = set;
  const { saved, count, isExcluded, delays } = options;
  const n = all.length;
  const width = saved + 1;
  const behind = leastBehind(set, pairs, saved);
  // A bound adds the same numbers in another order than a cost; what rounding can make of that is not a difference.
  const tolerance = 1e-12 * magnitude(set, pairs, saved);
  const best: RankedSelection[] = [];
  let nodes = 0;
  let proven = true;

  const offer = (selection: Selection) => {
    if (isExcluded?.(selection) || delays?.allows(selection) === false) return;
    const entry = { selection, cost: scoreSelection(set, selection, pairs) };
    const at = best.findIndex(
      (other) => (entry.cost - other.cost || compareSelections(selection, other.selection)) < 0,
    );
    best.splice(at < 0 ? best.length : at, 0, entry);
    if (best.length > count) best.pop();
  };

  /**
   * @param chosen ids of the groups so far, the last of which ends before layer `from`
   * @param cost of the groups so far with their interactions
   * @param left steps still to save
   * @param extra by candidate: its interactions with the groups so far
   * @param delay what the groups so far change the latency by
   */
  const visit = (
    chosen: Selection,
    from: number,
    cost: number,
    left: number,
    extra: Float64Array,
    delay: number,
  ): void => {
    if (left === 0) {
      offer(chosen);
      return;
    }
    if (nodes >= options.nodes) {
      proven = false;
      return;
    }
    nodes++;
    // least[e][r]: the least that groups in layers e and later can add while they save r steps.
    const least = new Float64Array((layers + 1 - from) * width).fill(Number.POSITIVE_INFINITY);
    least[(layers - from) * width] = 0;
    const children: { readonly candidate: Candidate; readonly bound: number }[] = [];
    for (let e = layers - 1; e >= from; e--) {
      const row = (e - from) * width;
      for (let r = 0; r <= left; r++) least[row + r] = least[row + width + r]!;
      for (const candidate of startingAt[e]!) {
        const own = candidate.cost + extra[candidate.id]!;
        const after = (candidate.end - from) * width - candidate.saved;
        const rest = candidate.id * width - candidate.saved;
        for (let r = candidate.saved; r <= left; r++) {
          const value = own + behind[rest + r]! + least[after + r]!;
          if (value < least[row + r]!) least[row + r] = value;
          if (r === left && value < Number.POSITIVE_INFINITY) {
            children.push({ candidate, bound: cost + value });
          }
        }
      }
    }
    children.sort((a, b) => a.bound - b.bound || a.candidate.id - b.candidate.id);
    for (const { candidate, bound } of children) {
      const later = delay + (delays?.change(candidate.id) ?? 0);
      if (delays?.reaches(later, candidate.end, left - candidate.saved) === false) continue;
      if (best.length === count && bound > best.at(-1)!.cost + tolerance) break;
      const inner = new Float64Array(n);
      for (let id = candidate.id + 1; id < n; id++) inner[id] = extra[id]! + pairs[candidate.id * n + id]!;
      visit(
        [...chosen, candidate.id],
        candidate.end,
        cost + candidate.cost + extra[candidate.id]!,
        left - candidate.saved,
        inner,
        later,
      );
    }
  };
  visit([], 0, 0, saved, new Float64Array(n), 0);
  return { best, proven, nodes };
}

/**
 * By candidate and steps r: the least sum of its interactions with groups without overlap that lie behind it and
 * save r steps together; +∞ where there are none.
 */
function leastBehind(set: CandidateSet, pairs: PairMatrix, saved: number): Float64Array {
  const { layers, all, startingAt } = set;
  const n = all.length;
  const width = saved + 1;
  const result = new Float64Array(n * width);
  const least = new Float64Array((layers + 1) * width);
  for (const candidate of all) {
    least.fill(Number.POSITIVE_INFINITY);
    least[layers * width] = 0;
    for (let e = layers - 1; e >= candidate.end; e--) {
      for (let r = 0; r <= saved; r++) least[e * width + r] = least[(e + 1) * width + r]!;
      for (const later of startingAt[e]!) {
        const pair = pairs[candidate.id * n + later.id]!;
        const after = later.end * width - later.saved;
        for (let r = later.saved; r <= saved; r++) {
          const value = pair + least[after + r]!;
          if (value < least[e * width + r]!) least[e * width + r] = value;
        }
      }
    }
    result.set(least.subarray(candidate.end * width, (candidate.end + 1) * width), candidate.id * width);
  }
  return result;
}

/** An upper limit of the sum of the magnitudes that any plan adds up. */
function magnitude(set: CandidateSet, pairs: PairMatrix, saved: number): number {
  const cost = set.all.reduce((most, candidate) => Math.max(most, Math.abs(candidate.cost)), 0);
  const pair = pairs.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  return saved * cost + saved * saved * pair;
}

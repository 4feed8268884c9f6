import { validatePlan } from '../plan/parse.js';
import type { Plan } from '../plan/types.js';
import {
  type CandidateSet,
  candidateSet,
  type RankedSelection,
  type Selection,
  selectionReader,
  toPlan,
} from './candidates.js';
import type { CandidateGroup } from './costs.js';
import { countPlans } from './counting.js';
import { Delays, type LatencyLimit } from './delays.js';
import { InteractionModel } from './interactions.js';
import { Ledger, type MeasuringOptions } from './ledger.js';
import { checkSteps } from './optimal.js';
import { better, StepSearch } from './step-search.js';
import { checkWhole } from './uniform.js';

/** What `searchPlans` searches, and how. */
export interface SearchOptions<C extends CandidateGroup> extends MeasuringOptions {
  /** Number of layers of the model. */
  readonly layers: number;
  readonly candidates: readonly C[];
  /** What a candidate costs when it alone is switched on, in the unit of `measure`. */
  readonly cost: (candidate: C) => number;
  /** Numbers of sequential steps to find plans for (default: all that the candidates reach, but `layers`). */
  readonly steps?: readonly number[] | undefined;
  /** Most plans measured for each number of steps. Those found in `known` count, too. */
  readonly budget: number;
  /**
   * Plans to measure before what the search proposes, such as `uniformPlans`, as far as the budget goes. Those that
   * these candidates do not make are passed over.
   */
  readonly seeds?: readonly Plan[] | undefined;
  /** Only plans that keep to this are measured and found; numbers of steps that no such plan has are passed over. */
  readonly latency?: LatencyLimit<C> | undefined;
  /** Most partial plans looked into for each proposal (default 4,000). */
  readonly nodes?: number | undefined;
}

/** The best plan found for a number of sequential steps. */
export interface SearchPoint {
  readonly steps: number;
  readonly plan: Plan;
  /** What the plan costs jointly, as measured. */
  readonly cost: number;
  /**
   * How many plans there are with so many steps (whatever they take, unless all were looked at), and how many of them were
   * measured, `known` ones included.
   */
  readonly plans: number;
  readonly measured: number;
  /** All of them were measured: no plan of these candidates is better. */
  readonly exhaustive: boolean;
  /** The search ended because nothing promised an improvement any more, and not because the budget was spent. */
  readonly settled: boolean;
  /** Each proposal was the certain optimum of the estimate it was made from; true, too, where exhaustive. */
  readonly proven: boolean;
  /** Another point has no more steps and costs no more. */
  readonly dominated: boolean;
}

/** What `searchPlans` found. */
export interface SearchResult {
  /** One for each number of steps, most steps first. */
  readonly points: readonly SearchPoint[];
  /** The points that are not dominated: fewer steps cost more. */
  readonly front: readonly SearchPoint[];
  /** Calls of `measure`. */
  readonly calls: number;
}

/** Partial plans for each proposal: a fraction of a second at 30 layers and 250 candidates. */
const SEARCH_NODES = 4_000;

/**
 * Searches the plan that costs least for each number of sequential steps, by measuring plans jointly.
 *
 * Where no more plans exist than the budget allows, all are measured. Otherwise, for each number of steps from the
 * most to the fewest:
 *
 * 1. The plan with the least sum of costs (`optimalPlans`) is measured, so the result is never worse; then seeds.
 * 2. From all that has been measured, for any number of steps, interactions are estimated (`fitInteractions`). On a
 *    short list come the plans that are best under the estimate and not measured yet: of all plans
 *    (`interactingPlans`), and of those next to the best measured one (groups shifted, moved, with another bypass,
 *    merged and split while the number of steps is kept). The one whose estimate less its standard deviation is
 *    lowest is measured, and the estimate made anew.
 * 3. The search of a number of steps ends with its budget, or when no plan on the list promises an improvement: the
 *    estimate of none, less two standard deviations, is below that of the best measured plan. Deviations are those
 *    of the difference between the two plans.
 *
 * The result depends on nothing but the options and what `measure` answers. Of plans that measure the same, the one
 * first in the order of `optimalPlans` is taken.
 *
 * @throws PlanError `PLAN_PARAMETERS`, also where `measure` gives no finite number; other codes of plans for `known`
 * and `seeds` that are not of this model; what `measure` and `onMeasured` throw; the signal's reason
 */
export async function searchPlans<C extends CandidateGroup>(
  options: SearchOptions<C>,
): Promise<SearchResult> {
  const { layers, candidates, cost, budget, nodes = SEARCH_NODES } = options;
  checkWhole('budget', budget, 1, Number.MAX_SAFE_INTEGER);
  checkWhole('nodes', nodes, 1, Number.MAX_SAFE_INTEGER);
  const set = candidateSet(layers, candidates, cost);
  const delays = options.latency === undefined ? undefined : Delays.of(set, candidates, options.latency);
  const steps = checkSteps(set, options.steps).filter(
    (n) => (options.steps !== undefined || n < layers) && delays?.reaches(0, 0, layers - n) !== false,
  );
  const counts = countPlans(set);
  const limits = steps.map((n) => Math.min(budget, counts[layers - n]!));
  const model = new InteractionModel(set);
  const ledger = new Ledger(set, options, limits);
  for (const { selection, cost } of ledger.known()) {
    if (!steps.includes(layers - savedBy(set, selection))) model.add(selection, cost);
  }
  const seeds = readSeeds(set, options.seeds ?? []);

  const points: Omit<SearchPoint, 'dominated'>[] = [];
  for (const [i, n] of steps.entries()) {
    const saved = layers - n;
    const all = counts[saved]! <= budget;
    const search = new StepSearch(set, model, ledger, { saved, budget: limits[i]!, nodes, delays });
    await search.run(
      seeds.filter((seed) => savedBy(set, seed) === saved),
      all,
    );
    ledger.close(i);
    const measured = mergeKnown(
      search.measured,
      ledger.known(),
      (one) => savedBy(set, one) === saved && delays?.allows(one) !== false,
    );
    const { selection, cost } = measured.reduce(better);
    // Where all were looked at, those that do not keep to the limit were left out.
    const plans = delays !== undefined && all ? measured.length : counts[saved]!;
    const exhaustive = measured.length === plans;
    points.push({
      steps: n,
      plan: toPlan(set, selection, {
        method: 'joint search',
        steps: n,
        measured: measured.length,
        exhaustive,
      }),
      cost,
      plans,
      measured: measured.length,
      exhaustive,
      settled: search.settled || exhaustive,
      proven: search.proven || exhaustive,
    });
  }
  const marked = points.map((point): SearchPoint => {
    const dominated = points.some((other) => other.steps < point.steps && other.cost <= point.cost);
    return { ...point, dominated };
  });
  return { points: marked, front: marked.filter((point) => !point.dominated), calls: ledger.calls };
}

function readSeeds(set: CandidateSet, seeds: readonly Plan[]): Selection[] {
  const read = selectionReader(set);
  return seeds.flatMap((plan) => {
    validatePlan(plan, { layers: set.layers });
    const selection = read(plan);
    return selection === undefined ? [] : [selection];
  });
}

/** Measured plans, and known ones that the search did not come by. */
function mergeKnown(
  measured: readonly RankedSelection[],
  known: readonly RankedSelection[],
  isWanted: (selection: Selection) => boolean,
): RankedSelection[] {
  const all = new Map(
    known.filter((one) => isWanted(one.selection)).map((one) => [one.selection.join(), one]),
  );
  for (const one of measured) all.set(one.selection.join(), one);
  return [...all.values()];
}

function savedBy(set: CandidateSet, selection: Selection): number {
  return selection.reduce((sum, id) => sum + set.all[id]!.saved, 0);
}

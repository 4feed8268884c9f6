import { PlanError } from '../errors.js';
import { validatePlan } from '../plan/parse.js';
import type { Plan } from '../plan/types.js';
import {
  type Candidate,
  type CandidateSet,
  candidateSet,
  checkCost,
  compareSelections,
  groupKey,
  type PairMatrix,
  type Selection,
  scoreSelection,
  selectionReader,
} from './candidates.js';
import type { CandidateGroup } from './costs.js';
import { pairMatrix } from './interacting.js';
import type { PlanCost } from './optimal.js';

/** What `fitInteractions` fits. */
export interface FitOptions<C extends CandidateGroup> {
  readonly layers: number;
  readonly candidates: readonly C[];
  readonly cost: (candidate: C) => number;
  /** Plans of these candidates with what they cost jointly. Their order does not matter. */
  readonly measured: readonly PlanCost[];
}

/** Estimated interactions of candidate groups. */
export interface Interactions {
  /** What two candidates without overlap cost together over the sum of both. */
  between(a: CandidateGroup, b: CandidateGroup): number;
  /** What a plan of these candidates costs: its groups' costs and the interactions of all pairs. */
  predict(plan: Plan): number;
}

/**
 * Estimates how the costs of groups compound, from plans that were measured jointly.
 *
 * The model: to second order, KL(original ‖ changed) is half the squared length of the change of the logits, in the
 * metric of Fisher's information. Where the changes δ of two groups add up, then, the plan costs
 * ½‖δ_g + δ_h‖² = c_g + c_h + 2 ρ √(c_g c_h), with ρ the cosine of the angle between the two changes. So
 *
 *     w(g, h) = 2 √(c_g c_h) · ρ_gh,   ρ_gh = ρ + ν / (1 + layers between g and h) + u_g + u_h + ε_gh
 *
 * with ρ for all pairs, ν for near ones, u a mean over the layers of a group of one number a layer (layers whose
 * change compounds with everything), and ε a term of each pair. All are fitted by ridge regression on measured
 * cost − Σ c, with a prior standard deviation for each kind (the constants in this file) that makes the data explain
 * themselves by what holds for all pairs before what holds for one. A pair's own term moves only where measured
 * plans contain the pair. Costs near 0 or below count as 1 % of the median cost in the square root.
 *
 * Without measurements all interactions are 0. Scaling costs and measurements by a number scales the result by it.
 *
 * @throws PlanError `PLAN_PARAMETERS`, also for a measured plan that is not of these candidates
 */
export function fitInteractions<C extends CandidateGroup>(options: FitOptions<C>): Interactions {
  const { layers, candidates, cost, measured } = options;
  const set = candidateSet(layers, candidates, cost);
  const read = selectionReader(set);
  const model = new InteractionModel(set);
  const idOf = new Map(set.all.map((candidate) => [groupKey(candidate.group), candidate.id]));
  const rows = measured.map((entry, i) => {
    validatePlan(entry.plan, { layers });
    checkCost(entry.cost, `measured[${i}].cost`);
    return { selection: known(read(entry.plan), `measured[${i}].plan`), cost: entry.cost };
  });
  // Sums depend on the order of their terms in the last bits; the result shall not.
  rows.sort((a, b) => compareSelections(a.selection, b.selection) || a.cost - b.cost);
  for (const { selection, cost } of rows) model.add(selection, cost);
  const pairs = model.pairs();
  return {
    between: (a, b) => {
      const [i, j] = [known(idOf.get(groupKey(a)), 'a'), known(idOf.get(groupKey(b)), 'b')];
      return pairs[Math.min(i, j) * set.all.length + Math.max(i, j)]!;
    },
    predict: (plan) => scoreSelection(set, known(read(plan), 'plan'), pairs),
  };
}

/** Prior standard deviations of ρ and ν, of a layer's u, and of ε: cosines are from −1 to 1. */
const SPREAD = { common: 1, near: 0.5, layer: 0.3, pair: 0.3 } as const;
/** What the model is expected to miss of a plan's cost, as a share of it. */
const MISFIT = 0.03;
/** Least cost under the square root, as a share of the median cost. */
const FLOOR = 0.01;

/**
 * The ridge regression of `fitInteractions`, one measurement after the other.
 *
 * It is solved in its dual form: (Φ Λ Φᵀ + Σ) α = y with one row a measurement, so that the many terms of pairs
 * cost nothing until they are seen. The Cholesky factor grows by a row for each measurement.
 */
export class InteractionModel {
  readonly #set: CandidateSet;
  /** √ of each candidate's cost. */
  readonly #roots: Float64Array;
  readonly #floor: number;
  readonly #rows: Row[] = [];
  /** Rows of the Cholesky factor, and L⁻¹ y. */
  readonly #factor: Float64Array[] = [];
  readonly #solved: number[] = [];
  #pairs: PairMatrix | undefined;

  constructor(set: CandidateSet) {
    this.#set = set;
    const sizes = set.all.map((candidate) => Math.abs(candidate.cost)).sort((a, b) => a - b);
    this.#floor = FLOOR * (sizes[sizes.length >> 1] ?? 0);
    this.#roots = Float64Array.from(set.all, ({ cost }) => Math.sqrt(Math.max(cost, this.#floor)));
  }

  add(selection: Selection, cost: number): void {
    const row = this.#rowOf(selection);
    const { factor, square } = this.#project(row);
    const rest = cost - scoreSelection(this.#set, selection);
    let known = 0;
    for (let i = 0; i < factor.length; i++) known += factor[i]! * this.#solved[i]!;
    const noise = (MISFIT * Math.max(Math.abs(cost), this.#floor)) ** 2 || Number.EPSILON;
    // Two measurements of one plan leave nothing but the noise, which rounding must not turn negative.
    const diagonal = Math.sqrt(Math.max(product(row, row) + noise - square, noise / 2));
    this.#factor.push(Float64Array.of(...factor, diagonal));
    this.#solved.push((rest - known) / diagonal);
    this.#rows.push(row);
    this.#pairs = undefined;
  }

  /** Standard deviation of what the estimate says about the difference of two plans' costs; 0 for one and the same. */
  uncertainty(selection: Selection, other: Selection): number {
    const row = difference(this.#rowOf(selection), this.#rowOf(other));
    return Math.sqrt(Math.max(product(row, row) - this.#project(row).square, 0));
  }

  /** L⁻¹ k with k the covariances of a row with those measured, and its squared length. */
  #project(row: Row): { factor: Float64Array; square: number } {
    const factor = new Float64Array(this.#rows.length);
    let square = 0;
    for (const [i, other] of this.#rows.entries()) {
      let sum = product(row, other);
      const before = this.#factor[i]!;
      for (let k = 0; k < i; k++) sum -= before[k]! * factor[k]!;
      factor[i] = sum / before[i]!;
      square += factor[i]! ** 2;
    }
    return { factor, square };
  }

  /** The interactions of all pairs as they are estimated now. */
  pairs(): PairMatrix {
    this.#pairs ??= this.#estimate();
    return this.#pairs;
  }

  #estimate(): PairMatrix {
    const { all, layers } = this.#set;
    const shared = new Float64Array(2 + layers);
    const own = new Map<number, number>();
    const weights = this.#weights();
    for (const [i, row] of this.#rows.entries()) {
      for (let k = 0; k < shared.length; k++) shared[k]! += weights[i]! * row.shared[k]!;
      for (const [pair, value] of row.pairs) own.set(pair, (own.get(pair) ?? 0) + weights[i]! * value);
    }
    for (let k = 0; k < shared.length; k++) shared[k]! *= variance(k);
    const tendency = all.map(({ group }) => {
      let sum = 0;
      for (const layer of group.layers) sum += shared[2 + layer]!;
      return sum / group.layers.length;
    });
    return pairMatrix(this.#set, (a, b) => {
      const ofPair = SPREAD.pair ** 2 * (own.get(a.id * all.length + b.id) ?? 0);
      const rho = shared[0]! + shared[1]! * nearness(a, b) + tendency[a.id]! + tendency[b.id]! + ofPair;
      return rho * this.#scale(a.id, b.id);
    });
  }

  /** α of (Φ Λ Φᵀ + Σ) α = y. */
  #weights(): Float64Array {
    const weights = Float64Array.from(this.#solved);
    for (let i = weights.length - 1; i >= 0; i--) {
      const factor = this.#factor[i]!;
      weights[i]! /= factor[i]!;
      for (let k = 0; k < i; k++) weights[k]! -= factor[k]! * weights[i]!;
    }
    return weights;
  }

  #scale(a: number, b: number): number {
    return 2 * this.#roots[a]! * this.#roots[b]!;
  }

  #rowOf(selection: Selection): Row {
    const { all, layers } = this.#set;
    const shared = new Float64Array(2 + layers);
    const pairs = new Map<number, number>();
    for (let i = 0; i < selection.length; i++) {
      for (let j = i + 1; j < selection.length; j++) {
        const a = all[selection[i]!]!;
        const b = all[selection[j]!]!;
        const scale = this.#scale(a.id, b.id);
        shared[0]! += scale;
        shared[1]! += scale * nearness(a, b);
        for (const { group } of [a, b]) {
          for (const layer of group.layers) shared[2 + layer]! += scale / group.layers.length;
        }
        pairs.set(a.id * all.length + b.id, scale);
      }
    }
    return { shared, pairs };
  }
}

/** A measured plan's coefficients. */
interface Row {
  /** Of ρ, ν, then of each layer. */
  readonly shared: Float64Array;
  /** Of ε, by pair. */
  readonly pairs: ReadonlyMap<number, number>;
}

function nearness(a: Candidate, b: Candidate): number {
  return 1 / (1 + b.first - a.end);
}

function variance(k: number): number {
  return (k === 0 ? SPREAD.common : k === 1 ? SPREAD.near : SPREAD.layer) ** 2;
}

function difference(a: Row, b: Row): Row {
  const pairs = new Map(a.pairs);
  for (const [pair, value] of b.pairs) pairs.set(pair, (pairs.get(pair) ?? 0) - value);
  return { shared: a.shared.map((value, k) => value - b.shared[k]!), pairs };
}

/** The prior covariance of what two plans cost over the sums of their parts. */
function product(a: Row, b: Row): number {
  let sum = 0;
  for (let k = 0; k < a.shared.length; k++) sum += variance(k) * a.shared[k]! * b.shared[k]!;
  for (const [pair, value] of a.pairs) sum += SPREAD.pair ** 2 * value * (b.pairs.get(pair) ?? 0);
  return sum;
}

function known<T>(value: T | undefined, path: string): T {
  if (value !== undefined) return value;
  throw new PlanError('PLAN_PARAMETERS', 'not of the candidates', {
    path,
    expected: 'groups that are candidates',
    found: 'another group',
  });
}

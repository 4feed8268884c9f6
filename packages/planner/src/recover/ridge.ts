import { Cholesky } from './cholesky.js';
import type { Matrix, Products } from './products.js';

/** Sums over tokens that a least-squares problem consists of, in float64. */
export interface NormalEquations {
  /** Σ w x xᵀ, `[features, features]`. */
  readonly gram: Float64Array;
  /** Σ w x eᵀ, `[features, outputs]`. */
  readonly moment: Float64Array;
  /** Σ w ‖e‖² */
  readonly energy: number;
  readonly features: number;
  readonly outputs: number;
  /** Tokens that count. */
  readonly tokens: number;
}

/** Adds tokens up to the normal equations of a regression, a batch at a time. */
export class NormalSum {
  readonly #products: Products;
  readonly #withOne: boolean;
  #gram: Float64Array | undefined;
  #moment: Float64Array | undefined;
  #energy = 0;
  #features = 0;
  #outputs = 0;
  #tokens = 0;

  /** @param withOne see `Products.gram` */
  constructor(products: Products, withOne: boolean) {
    this.#products = products;
    this.#withOne = withOne;
  }

  /**
   * @param x `[tokens, features]`
   * @param e `[tokens, outputs]`, what is to be predicted
   * @param weights `[tokens]`, 0 for tokens that do not count
   */
  async add(x: Float32Array, e: Float32Array, weights: Float32Array): Promise<void> {
    const { gram, moment, energy } = await this.#products.gram(x, e, weights, this.#withOne);
    this.#features = x.length / weights.length + (this.#withOne ? 1 : 0);
    this.#outputs = e.length / weights.length;
    this.#gram = addTo(this.#gram, gram);
    this.#moment = addTo(this.#moment, moment);
    this.#energy += energy;
    this.#tokens += weights.reduce((count, weight) => count + (weight > 0 ? 1 : 0), 0);
  }

  finish(): NormalEquations {
    return {
      gram: this.#gram ?? new Float64Array(0),
      moment: this.#moment ?? new Float64Array(0),
      energy: this.#energy,
      features: this.#features,
      outputs: this.#outputs,
      tokens: this.#tokens,
    };
  }
}

export interface RidgeResult {
  /** `[features, outputs]`; `undefined` where no solution makes the held-out error smaller. */
  readonly solution: Float64Array | undefined;
  /** The one that was best, relative to the mean of the Gram matrix's diagonal. */
  readonly lambda: number | undefined;
  /** Σ w ‖e − Wᵀx‖² over held-out tokens, with W = 0 and with the solution. */
  readonly before: number;
  readonly after: number;
}

/** In steps of about √10: the error is flat around its least. */
const LAMBDAS = [1, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0001];

/**
 * Ridge regression in float64, `(XᵀX + λ s I) W = XᵀE` with s the mean of the diagonal of XᵀX, λ chosen by the error on
 * held-out tokens (Hoerl and Kennard, "Ridge Regression", Technometrics 12, 1970). What is predicted is a correction, so
 * a large λ means to leave the original as it is.
 *
 * λ is tried from large to small as long as the held-out error falls.
 *
 * @throws MetricError `MATRIX_NOT_POSITIVE`
 */
export async function ridge(
  products: Products,
  fit: NormalEquations,
  heldOut: NormalEquations,
  lambdas: readonly number[] = LAMBDAS,
): Promise<RidgeResult> {
  const { features, outputs } = fit;
  const gram: Matrix = { rows: features, columns: features, data: fit.gram };
  const moment: Matrix = { rows: features, columns: outputs, data: fit.moment };
  let mean = 0;
  for (let i = 0; i < features; i++) mean += fit.gram[i * features + i]! / features;
  let best: { solution: Float64Array; lambda: number; error: number } | undefined;
  if (mean > 0 && heldOut.energy > 0) {
    for (const lambda of lambdas) {
      const factor = await Cholesky.factor(products, gram, lambda * mean);
      const solution = await factor.solve(moment);
      const error = await errorOf(products, solution, heldOut);
      if (best !== undefined && error > best.error) break;
      best = { solution: solution.data, lambda, error };
    }
  }
  const helps = best !== undefined && best.error < heldOut.energy;
  return {
    solution: helps ? best?.solution : undefined,
    lambda: helps ? best?.lambda : undefined,
    before: heldOut.energy,
    after: helps ? (best?.error ?? heldOut.energy) : heldOut.energy,
  };
}

/** Σ ‖e − Wᵀx‖² = Σ ‖e‖² − 2 tr(Wᵀ XᵀE) + tr(Wᵀ XᵀX W) */
async function errorOf(products: Products, solution: Matrix, sums: NormalEquations): Promise<number> {
  const gram: Matrix = { rows: sums.features, columns: sums.features, data: sums.gram };
  const product = await products.multiply(gram, solution);
  let error = sums.energy;
  for (let i = 0; i < solution.data.length; i++) {
    error += solution.data[i]! * (product.data[i]! - 2 * sums.moment[i]!);
  }
  return Math.max(0, error);
}

function addTo(sum: Float64Array | undefined, values: Float32Array): Float64Array {
  if (sum === undefined) return Float64Array.from(values);
  for (let i = 0; i < values.length; i++) sum[i]! += values[i]!;
  return sum;
}

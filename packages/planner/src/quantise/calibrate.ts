import { asFloat32, type SessionOptions } from '@cqil/runtime-gpu';
import type { Model } from '../onnx/index.js';
import { Cholesky } from '../recover/cholesky.js';
import type { Matrix, Products } from '../recover/products.js';
import { Stages } from './stages.js';

/** What is known of the inputs of some products, summed over tokens. */
export interface InputSums {
  readonly features: number;
  /** X̂ᵀX̂ of the inputs that the quantised model gives, `[features, features]`. */
  readonly gram: Float64Array;
  /** X̂ᵀ(X − X̂), X the original's inputs, `[features, features]`. */
  readonly drift: Float64Array;
}

/** Tokens whose mean square is more than this many times the batch's median count as much as such a one. */
const MASSIVE = 30;
/** Added to the diagonal for the correction, relative to its mean: the drift is small, and is not to be fitted to noise. */
const CORRECTION_DAMPING = 0.03;

/** Gives what products read over the calibration text, one input after the other, in the original and as it is now. */
export class Calibration {
  readonly #original: Model;
  readonly #products: Products;
  readonly #teacher: Stages;
  readonly #student: Stages;

  /**
   * @param source computes what the original does, and has the values that the models given later have
   * @param inputs values of both graphs, in topological order
   * @param batches token ids, `[batches][batch][sequence]`
   */
  constructor(
    original: Model,
    source: Model,
    products: Products,
    inputs: readonly string[],
    batches: readonly (readonly (readonly number[])[])[],
    session: SessionOptions | undefined,
  ) {
    this.#original = original;
    this.#products = products;
    this.#teacher = new Stages(original, inputs, batches, session);
    this.#student = new Stages(source, inputs, batches, session);
  }

  /** @param model the original with new weights before this input */
  async next(model: Model, features: number, signal: AbortSignal | undefined): Promise<InputSums> {
    const truth: Float32Array[] = [];
    await this.#teacher.next(
      this.#original,
      (value) => {
        truth.push(asFloat32(value));
      },
      signal,
    );
    const sums = {
      features,
      gram: new Float64Array(features * features),
      drift: new Float64Array(features * features),
    };
    await this.#student.next(
      model,
      async (value, batch) => {
        const x = asFloat32(value);
        const missing = (truth[batch] as Float32Array).map((v, i) => v - x[i]!);
        const { gram, moment } = await this.#products.gram(x, missing, tokenShares(x, features), false);
        for (let i = 0; i < gram.length; i++) {
          sums.gram[i]! += gram[i]!;
          sums.drift[i]! += moment[i]!;
        }
      },
      signal,
    );
    return sums;
  }
}

/**
 * How much each token counts: all the same, but for those with activations of another scale (massive activations,
 * arXiv 2402.17762), a few of which would outweigh all others.
 */
export function tokenShares(x: Float32Array, features: number): Float32Array {
  const tokens = x.length / features;
  const squares = new Float32Array(tokens);
  for (let token = 0; token < tokens; token++) {
    let sum = 0;
    for (let i = token * features; i < (token + 1) * features; i++) sum += x[i]! * x[i]!;
    squares[token] = sum / features;
  }
  const limit = MASSIVE * (Float32Array.from(squares).sort()[tokens >> 1] ?? 0);
  return squares.map((square) => (square > limit ? limit / square : 1));
}

/**
 * What is added to matrices so that they give on the inputs that the quantised model gives what the original gives on its
 * own, as far as that is linear: (X̂ᵀX̂ + λI)⁻¹ X̂ᵀ(X − X̂) W. With it, errors of earlier layers are made up for instead
 * of handed on (as in GPTAQ, arXiv 2504.02692).
 */
export class DriftCorrection {
  readonly #products: Products;
  readonly #sums: InputSums;
  readonly #factor: Cholesky | undefined;

  private constructor(products: Products, sums: InputSums, factor: Cholesky | undefined) {
    this.#products = products;
    this.#sums = sums;
    this.#factor = factor;
  }

  static async of(products: Products, sums: InputSums): Promise<DriftCorrection> {
    const { features: n, gram, drift } = sums;
    let mean = 0;
    for (let i = 0; i < n; i++) mean += gram[i * n + i]! / n;
    // Before the first new weight, inputs are the original's.
    const needed = mean > 0 && drift.some((value) => value !== 0);
    const matrix = { rows: n, columns: n, data: gram };
    return new DriftCorrection(
      products,
      sums,
      needed ? await Cholesky.factor(products, matrix, mean * CORRECTION_DAMPING) : undefined,
    );
  }

  /** @param weight row-major `[features, outputs]` */
  async apply(weight: Float32Array): Promise<Float32Array> {
    if (this.#factor === undefined) return weight;
    const { features: n, drift } = this.#sums;
    const w: Matrix = { rows: n, columns: weight.length / n, data: Float64Array.from(weight) };
    const missing = await this.#products.multiply({ rows: n, columns: n, data: drift }, w);
    const { data } = await this.#factor.solve(missing);
    return weight.map((value, i) => value + data[i]!);
  }
}

/** Every eighth output tells the error of all of them. */
const SAMPLE = 8;

/** Σ‖(W − Ŵ)ᵀx‖² / Σ‖Wᵀx‖² over the inputs that `gram` sums up, on a sample of the outputs. */
export async function outputError(
  products: Products,
  gram: Float64Array,
  features: number,
  weight: Float32Array,
  quantised: Float32Array,
): Promise<number> {
  const outputs = weight.length / features;
  const columns = Math.ceil(outputs / SAMPLE);
  const whole = new Float64Array(features * columns);
  const error = new Float64Array(features * columns);
  for (let k = 0; k < features; k++) {
    for (let column = 0; column < columns; column++) {
      const i = k * outputs + column * SAMPLE;
      whole[k * columns + column] = weight[i]!;
      error[k * columns + column] = weight[i]! - quantised[i]!;
    }
  }
  const power = async (data: Float64Array) => {
    const matrix = { rows: features, columns, data };
    const product = await products.multiply({ rows: features, columns: features, data: gram }, matrix);
    let sum = 0;
    for (let i = 0; i < data.length; i++) sum += product.data[i]! * data[i]!;
    return sum;
  };
  const size = await power(whole);
  return size > 0 ? (await power(error)) / size : 0;
}

/** ‖W − Ŵ‖² / ‖W‖² */
export function weightError(weight: Float32Array, quantised: Float32Array): number {
  let error = 0;
  let size = 0;
  for (let i = 0; i < weight.length; i++) {
    error += (weight[i]! - quantised[i]!) ** 2;
    size += weight[i]! ** 2;
  }
  return size > 0 ? error / size : 0;
}

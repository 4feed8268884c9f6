/** `output = input · weight + bias`, one map of one layer. */
export interface AffineMatrix {
  readonly inFeatures: number;
  readonly outFeatures: number;
  /** Row-major `[inFeatures, outFeatures]`. */
  readonly weight: Float32Array;
  /** `[outFeatures]` */
  readonly bias: Float32Array | undefined;
}

/**
 * What a norm does behind its normalisation: `x̂ → g ⊙ x̂ + s`, in float64. Either may be absent.
 */
export interface NormScaling {
  /** `[hidden]` */
  readonly gain: Float64Array | undefined;
  /** `[hidden]` */
  readonly shift: Float64Array | undefined;
}

/**
 * The map that gives, on `ḡ ⊙ x̂`, what the given one gives on `g ⊙ x̂ + s`:
 *
 *     W' = diag(g / ḡ) · W        b' = b + sᵀ · W
 *
 * so that one norm with the gain ḡ (all ones when absent) serves maps that stood behind different ones.
 *
 * @param shared ḡ, `[inFeatures]`, without zeros
 */
export function foldNorm(matrix: AffineMatrix, norm: NormScaling, shared?: Float64Array): AffineMatrix {
  const { inFeatures, outFeatures, weight } = matrix;
  const { gain, shift } = norm;
  const folded = new Float32Array(weight.length);
  const bias =
    shift === undefined ? undefined : Float64Array.from(matrix.bias ?? new Float32Array(outFeatures));
  for (let k = 0; k < inFeatures; k++) {
    const factor = (gain?.[k] ?? 1) / (shared?.[k] ?? 1);
    const offset = shift?.[k] ?? 0;
    for (let j = 0; j < outFeatures; j++) {
      const value = weight[k * outFeatures + j] as number;
      folded[k * outFeatures + j] = value * factor;
      if (bias !== undefined) bias[j] = (bias[j] as number) + offset * value;
    }
  }
  return {
    inFeatures,
    outFeatures,
    weight: folded,
    bias: bias === undefined ? matrix.bias : Float32Array.from(bias),
  };
}

/**
 * One gain for several norms, each entry the geometric mean of theirs: what remains to be folded into the matrices
 * behind them is then as near to 1 as one gain can make it, and matrices in 4-bit blocks change least. Where they have
 * no mean (a zero, or signs that differ) it is 1.
 *
 * @param gains of equal length; a norm without gain counts as ones
 */
export function meanGain(gains: readonly (Float64Array | undefined)[], hidden: number): Float64Array {
  return Float64Array.from({ length: hidden }, (_, k) => {
    const values = gains.map((gain) => gain?.[k] ?? 1);
    const sign = Math.sign(values[0] as number);
    if (sign === 0 || !values.every((value) => Math.sign(value) === sign)) return 1;
    const logs = values.reduce((sum, value) => sum + Math.log(Math.abs(value)), 0);
    // As it will be stored: the rest is folded exactly.
    return Math.fround(sign * Math.exp(logs / values.length));
  });
}

/** How many times as large or as small as the shared gain another may be: the rest of its block has the same step. */
const FARTHEST = 64;

/**
 * Which of several norms' gains may be kept for all of them: the one that the others are nearest to, by the largest
 * ratio anywhere. The matrices behind that norm need no folding then. None where a gain is 0, or so far from another
 * that folding the ratio would spoil the blocks it is in.
 *
 * @returns its number, the first of equal ones
 */
export function nearestGain(gains: readonly (Float64Array | undefined)[]): number | undefined {
  let best: { index: number; farthest: number } | undefined;
  for (const [index, gain] of gains.entries()) {
    if (gain === undefined) continue;
    let farthest = 0;
    for (const other of gains) {
      for (let k = 0; k < gain.length; k++) {
        const ratio = Math.abs((other?.[k] ?? 1) / (gain[k] as number));
        // What another norm leaves nothing of, any norm can be in the place of.
        if (ratio === 0) continue;
        farthest = Number.isNaN(ratio) ? Number.POSITIVE_INFINITY : Math.max(farthest, ratio, 1 / ratio);
        if (farthest === Number.POSITIVE_INFINITY) break;
      }
    }
    if (farthest <= FARTHEST && farthest < (best?.farthest ?? Number.POSITIVE_INFINITY))
      best = { index, farthest };
  }
  return best?.index;
}

/** Columns `from` to `from + width` of a matrix, to be the columns from `at` on of another. */
export interface ColumnRun {
  readonly from: number;
  readonly width: number;
  readonly at: number;
}

/** A matrix that is put together from parts of others, all in place: it holds one other matrix at a time. */
export class MatrixBuilder {
  readonly weight: Float32Array;
  readonly #bias: Float64Array | undefined;

  constructor(
    readonly inFeatures: number,
    readonly outFeatures: number,
    hasBias: boolean,
  ) {
    this.weight = new Float32Array(inFeatures * outFeatures);
    this.#bias = hasBias ? new Float64Array(outFeatures) : undefined;
  }

  /** Members side by side along the outputs: q, k, v, gate and up. All read the same input. */
  columns(part: AffineMatrix, runs: readonly ColumnRun[]): void {
    for (const { from, width, at } of runs) {
      for (let k = 0; k < this.inFeatures; k++) {
        const start = k * part.outFeatures + from;
        this.weight.set(part.weight.subarray(start, start + width), k * this.outFeatures + at);
      }
      for (let j = 0; j < width; j++) this.#addBias(at + j, part.bias?.[from + j] ?? 0);
    }
  }

  /** Members one below the other along the inputs, from row `at` on: o and down, whose outputs and biases are summed. */
  rows(part: AffineMatrix, at: number): void {
    this.weight.set(part.weight, at * this.outFeatures);
    for (const [j, value] of part.bias?.entries() ?? []) this.#addBias(j, value);
  }

  addBias(bias: Float64Array): void {
    for (const [j, value] of bias.entries()) this.#addBias(j, value);
  }

  build(): AffineMatrix {
    const { inFeatures, outFeatures, weight } = this;
    const bias = this.#bias === undefined ? undefined : Float32Array.from(this.#bias);
    return { inFeatures, outFeatures, weight, bias };
  }

  #addBias(j: number, value: number): void {
    if (this.#bias !== undefined) this.#bias[j] = (this.#bias[j] as number) + value;
  }
}

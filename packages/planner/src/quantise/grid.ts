import { floatToHalf, halfToFloat } from '../gguf/half.js';

/** Values a block can have: `(code − zero) · scale` for codes from 0 to `last`. */
export interface Grid {
  readonly scale: number;
  readonly zero: number;
}

export interface GridOptions {
  readonly bits: 4 | 8;
  /** Whether the zero point is free; if not it is in the middle, 2^(bits−1). */
  readonly asymmetric: boolean;
  /** Scales are of this type. */
  readonly scaleType: 'float32' | 'float16';
}

/**
 * How far the ends of a block's range are drawn in, in shares of it: cutting off an outlier can make the steps of all
 * others finer. Past 8 bits nothing is gained by that.
 */
const SHARES = {
  4: [1, 0.97, 0.94, 0.91, 0.88, 0.85, 0.82, 0.79, 0.76, 0.72, 0.68, 0.64],
  8: [1],
} as const;

/**
 * Finds scale and zero point of a block by search: ranges between those of the values and narrower ones, zero points
 * near the one that each range asks for, and for the codes that these give the scale of least squares,
 *
 *     s = Σ w v (c − z) / Σ w (c − z)²
 *
 * Of all, what leaves the least Σ w (v − s (c − z))²; of equals the first, so that the result depends on nothing else.
 */
export class GridSearch {
  readonly #last: number;
  readonly #middle: number;
  readonly #shares: readonly number[];
  readonly #options: GridOptions;
  scale = 0;
  zero = 0;
  #error = 0;

  constructor(options: GridOptions) {
    this.#options = options;
    this.#last = 2 ** options.bits - 1;
    this.#middle = 2 ** (options.bits - 1);
    this.#shares = SHARES[options.bits];
  }

  /**
   * Leaves the grid in `scale` and `zero`.
   *
   * @param values of one block
   * @param weights how much each value's error counts, not negative
   */
  find(values: Float64Array, weights: Float64Array): void {
    let low = 0;
    let high = 0;
    for (let i = 0; i < values.length; i++) {
      const value = values[i]!;
      if (value < low) low = value;
      else if (value > high) high = value;
    }
    this.scale = 0;
    this.zero = this.#middle;
    if (low === 0 && high === 0) return;
    this.#error = Number.POSITIVE_INFINITY;
    const last = this.#last;
    if (!this.#options.asymmetric) {
      const size = Math.max(-low, high);
      // The code below the middle by one more than those above it is left out or used, as the signs want it.
      for (const share of this.#shares) {
        this.#try(values, weights, (size * share) / (last - this.#middle), this.#middle);
        this.#try(values, weights, (size * share) / this.#middle, this.#middle);
      }
      return;
    }
    for (const share of this.#shares) {
      const scale = ((high - low) * share) / last;
      // Drawn in at both ends alike: the middle of the range stays.
      const exact = -(low + ((high - low) * (1 - share)) / 2) / scale;
      const floor = Math.floor(exact);
      this.#try(values, weights, scale, floor);
      this.#try(values, weights, scale, floor + 1);
    }
  }

  #try(values: Float64Array, weights: Float64Array, first: number, zeroWanted: number): void {
    const last = this.#last;
    const zero = Math.max(0, Math.min(last, zeroWanted));
    let scale = this.#stored(first);
    if (scale === 0) return;
    // Twice: the codes for the first scale, then those for the scale that they ask for.
    for (let pass = 0; pass < 2; pass++) {
      const inverse = 1 / scale;
      let product = 0;
      let square = 0;
      let error = 0;
      for (let i = 0; i < values.length; i++) {
        const value = values[i]!;
        const weight = weights[i]!;
        let code = Math.floor(value * inverse + zero + 0.5);
        if (code < 0) code = 0;
        else if (code > last) code = last;
        const step = code - zero;
        const rest = value - step * scale;
        error += weight * rest * rest;
        product += weight * value * step;
        square += weight * step * step;
      }
      if (error < this.#error) {
        this.#error = error;
        this.scale = scale;
        this.zero = zero;
      }
      if (!(square > 0 && product > 0)) return;
      const better = this.#stored(product / square);
      if (better === scale || better === 0) return;
      scale = better;
    }
  }

  #stored(scale: number): number {
    return this.#options.scaleType === 'float16' ? halfToFloat(floatToHalf(scale)) : Math.fround(scale);
  }
}

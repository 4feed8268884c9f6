import { type CodeBits, largestCode } from './codes.js';

/** Bins of an octave: five bits of the mantissa. */
const MANTISSA_BITS = 5;
const SHIFT = 23 - MANTISSA_BITS;
const BINS = 2 ** (8 + MANTISSA_BITS);
/** Beyond so many steps a value is rounded as if it could lie anywhere between two codes. */
const SINGLE_STEPS = 8;

/**
 * How often magnitudes occur, by bins of a 32nd of an octave: enough to tell what any step would cost, without holding
 * the values. Tokens can count for less than one.
 */
export class MagnitudeHistogram {
  readonly #weights = new Float64Array(BINS);
  #count = 0;
  #power = 0;
  #largest = 0;
  #heavy = 0;

  /**
   * @param values `[tokens, features]`
   * @param shares how much each token counts, `[tokens]`
   */
  add(values: Float32Array, shares: Float32Array): void {
    const features = values.length / shares.length;
    const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
    const weights = this.#weights;
    for (let token = 0; token < shares.length; token++) {
      const share = shares[token]!;
      let [power, largest] = [0, 0];
      for (let i = token * features; i < (token + 1) * features; i++) {
        const magnitude = Math.abs(values[i]!);
        weights[(bits[i]! & 0x7fffffff) >>> SHIFT]! += share;
        power += magnitude * magnitude;
        if (magnitude > largest) largest = magnitude;
      }
      this.#count += share * features;
      this.#power += share * power;
      this.#largest = Math.max(this.#largest, largest);
      if (share < 1) this.#heavy = Math.max(this.#heavy, largest);
    }
  }

  /** The largest magnitude, whatever its token counts. */
  get largest(): number {
    return this.#largest;
  }

  /** The largest magnitude among tokens that count for less than one; 0 where there are none. */
  get heavy(): number {
    return this.#heavy;
  }

  /** Mean square. */
  get power(): number {
    return this.#count > 0 ? this.#power / this.#count : 0;
  }

  /** The magnitude that a share of the values does not exceed, to a bin. */
  quantile(share: number): number {
    let rest = share * this.#count;
    for (const [bin, weight] of this.#weights.entries()) {
      rest -= weight;
      if (rest <= 0 && weight > 0) return Math.min(this.#largest, edge(bin + 1));
    }
    return this.#largest;
  }

  /** Mean squared error of a step: of rounding, and of holding what is larger than the codes reach. */
  error(step: number, bits: CodeBits): number {
    if (this.#count === 0) return 0;
    const limit = largestCode(bits) * step;
    let sum = 0;
    for (const [bin, weight] of this.#weights.entries()) {
      if (weight === 0) continue;
      const middle = (edge(bin) + edge(bin + 1)) / 2;
      if (middle > limit + step / 2) sum += weight * (middle - limit) ** 2;
      else if (middle > SINGLE_STEPS * step) sum += (weight * step * step) / 12;
      else sum += weight * (middle - step * Math.round(middle / step)) ** 2;
    }
    return sum / this.#count;
  }
}

/** The least magnitude of a bin. */
function edge(bin: number): number {
  const exponent = bin >> MANTISSA_BITS;
  const mantissa = (bin & (2 ** MANTISSA_BITS - 1)) / 2 ** MANTISSA_BITS;
  // Without a leading one below the least exponent.
  return exponent === 0 ? mantissa * 2 ** -126 : (1 + mantissa) * 2 ** (exponent - 127);
}

import { MetricError } from '../errors.js';
import { checkActivations } from './activations.js';
import { angularOf, cosineOf } from './angles.js';
import { gram } from './gram.js';
import { dot, hsicScale, MIN_HSIC_SAMPLES, triangleSize, uCentre } from './hsic.js';
import { isKept, type TokenMask } from './mask.js';
import { parseSimilarityState, type SimilarityState } from './state.js';

/** A square matrix as rows. */
export type Matrix = readonly (readonly number[])[];

/** What a `SimilarityAccumulator` is made for. */
export interface SimilarityOptions {
  /** Number of layer inputs compared: for a model of L layers, L + 1 with the output of the last layer. */
  readonly points: number;
  /** Width of the residual stream. */
  readonly hidden: number;
  /** Tokens in one minibatch of the CKA estimate, at least 4 (default 64). */
  readonly ckaBatch?: number;
}

/** Similarity of all pairs of layer inputs over all tokens seen. All matrices are `[points, points]`. */
export interface Similarity {
  readonly points: number;
  /** Tokens that counted. */
  readonly tokens: number;
  /** Tokens that counted for `cka`: all but a last, incomplete minibatch of fewer than 4. */
  readonly ckaTokens: number;
  readonly ckaBatch: number;
  /** Mean over tokens of cos(x_i, x_j), in [-1, 1]. Symmetric. */
  readonly cosine: Matrix;
  /** Mean over tokens of arccos(cos(x_i, x_j)) / π, in [0, 1]. Symmetric. */
  readonly angular: Matrix;
  /**
   * Row i, column j: mean over tokens of ‖x_j − x_i‖ / ‖x_i‖. Not symmetric: the row is the reference. A layer j
   * that reads the input of layer a errs by `relativeL2[j][a]`.
   */
  readonly relativeL2: Matrix;
  /** Linear CKA, unbiased, in [-1, 1]. Symmetric. `null` where fewer than 4 tokens were seen. */
  readonly cka: Matrix | null;
  /** `[points - 1]`: 1 − mean cos(x_i, x_{i+1}), a layer's block influence (ShortGPT, arXiv 2403.03853). */
  readonly blockInfluence: readonly number[];
  /** `[points]`: tokens whose vector was zero there. */
  readonly zeroTokens: readonly number[];
}

/** Running sums; every one is a plain sum over tokens, so two of them add up. */
interface Sums {
  tokens: number;
  ckaTokens: number;
  cosine: Float64Array;
  angular: Float64Array;
  relative: Float64Array;
  hsic: Float64Array;
  energy: Float64Array;
  zeros: Float64Array;
}

/** Most numbers in one buffer (4 GB of float32): more is a mistake, and would end in an error without a code. */
const MAX_VALUES = 2 ** 30;

/** Below this share of the raw kernel's energy, what centring leaves is rounding error: no variation at all. */
const NO_VARIATION = 1e-24;

/** Below this share of ‖x_i‖² + ‖x_j‖², a squared distance taken from dot products has lost too many digits. */
const CANCELLATION = 1e-6;

/**
 * Similarity between all pairs of layer inputs, from batches of activations that are not kept.
 *
 * - Cosine, angular distance and relative L2 are means over tokens; block influence follows from the cosine.
 * - Linear CKA is the ratio of summed unbiased estimates of HSIC on minibatches of `ckaBatch` tokens (HSIC_1, Song
 *   et al. 2012; minibatch CKA, Nguyen, Raghu and Kornblith 2021, arXiv 2010.15327). Minibatches
 *   follow the order of the tokens, whatever the sizes of the batches they arrive in. When `finish` is called in
 *   the middle of one, its tokens form a smaller one if there are at least 4, else they count for all but CKA. A
 *   minibatch's weight is its number of tokens.
 * - Zero vectors: two of them have cosine 1 and distance 0; a zero and another vector have cosine 0 and angular
 *   distance 0.5. Tokens where x_i is zero are left out of row i of `relativeL2` (which is 0 where none is left).
 * - A point that does not vary over the tokens has CKA 0 with every other; with itself it is always 1.
 *
 * All sums are float64. Memory: `points · ckaBatch · hidden` float32 for the tokens of one minibatch and
 * `(points · ckaBatch² / 2 + 5 · points²)` float64, whatever the number of tokens; nothing grows with `hidden²`.
 *
 * @example
 * const similarity = new SimilarityAccumulator({ points: 3, hidden: 2 });
 * similarity.add([x0, x1, x2]); // each a Float32Array [tokens, hidden]
 * similarity.finish().cosine[0][1];
 */
export class SimilarityAccumulator {
  readonly points: number;
  readonly hidden: number;
  readonly ckaBatch: number;
  readonly #sums: Sums;
  /** `[points, ckaBatch, hidden]`: the tokens of the minibatch being filled. */
  readonly #pending: Float32Array;
  #filled = 0;
  readonly #pairs: Float64Array;
  readonly #kernel: Float64Array;
  readonly #centred: Float64Array;

  /** @throws MetricError `METRIC_OPTIONS` where a size is not a whole number, too small or too large. */
  constructor(options: SimilarityOptions) {
    const { points, hidden, ckaBatch = 64 } = options;
    checkSize('points', points, 1);
    checkSize('hidden', hidden, 1);
    checkSize('ckaBatch', ckaBatch, MIN_HSIC_SAMPLES);
    if (points * ckaBatch * Math.max(hidden, ckaBatch) > MAX_VALUES || points * points > MAX_VALUES) {
      throw new MetricError('METRIC_OPTIONS', 'One minibatch of all points does not fit in memory.', {
        expected: `points x ckaBatch x hidden, points x ckaBatch² and points² of at most ${MAX_VALUES}`,
        found: `${points} points, ckaBatch ${ckaBatch}, hidden ${hidden}`,
        hint: 'Use a smaller ckaBatch.',
      });
    }
    this.points = points;
    this.hidden = hidden;
    this.ckaBatch = ckaBatch;
    this.#sums = emptySums(points);
    this.#pending = new Float32Array(points * ckaBatch * hidden);
    this.#pairs = new Float64Array(points * points);
    this.#kernel = new Float64Array(ckaBatch * ckaBatch);
    this.#centred = new Float64Array(points * triangleSize(ckaBatch));
  }

  /** Tokens that have counted so far. */
  get tokens(): number {
    return this.#sums.tokens + this.#filled;
  }

  /**
   * Takes in one batch.
   *
   * @param activations one `[tokens, hidden]` a point, row-major, the same tokens in each. Not kept.
   * @param options.mask one flag a token; see `tokenMask`.
   * @throws MetricError `ACTIVATION_SHAPE`, `ACTIVATION_NOT_FINITE` (naming point and token); the accumulator is
   * then as it was before.
   */
  add(activations: readonly Float32Array[], options: { readonly mask?: TokenMask | undefined } = {}): this {
    const { points, hidden, ckaBatch } = this;
    if (activations.length !== points) {
      throw new MetricError('ACTIVATION_SHAPE', 'A batch has activations of the wrong number of points.', {
        expected: `${points} arrays, one a layer input`,
        found: `${activations.length}`,
      });
    }
    const { mask } = options;
    const tokens = checkActivations(activations, (index) => `point ${index}`, hidden, mask);
    for (let token = 0; token < tokens; token++) {
      if (!isKept(mask, token)) continue;
      const start = token * hidden;
      for (let point = 0; point < points; point++) {
        const row = activations[point]!.subarray(start, start + hidden);
        this.#pending.set(row, (point * ckaBatch + this.#filled) * hidden);
      }
      this.#filled++;
      if (this.#filled === ckaBatch) {
        this.#consume(this.#sums);
        this.#filled = 0;
      }
    }
    return this;
  }

  /**
   * Adds what another accumulator of the same sizes has seen, so that parts of a text can be measured apart. The
   * other one is left as it is.
   *
   * Means are those of one run over all tokens; CKA too, but for the make-up of the minibatches: the other one's
   * incomplete minibatch is continued here.
   *
   * @throws MetricError `METRIC_OPTIONS` where the sizes differ.
   */
  merge(other: SimilarityAccumulator): this {
    for (const key of ['points', 'hidden', 'ckaBatch'] as const) {
      if (this[key] !== other[key]) {
        throw new MetricError('METRIC_OPTIONS', `Accumulators of different ${key} cannot be merged.`, {
          expected: `${this[key]}`,
          found: `${other[key]}`,
        });
      }
    }
    const pending = other.#pendingRows();
    addSums(this.#sums, other.#sums);
    this.add(pending);
    return this;
  }

  /**
   * The similarity over all tokens so far. More batches may be added afterwards, and `finish` called again.
   *
   * @throws MetricError `NO_TOKENS` where no token has counted.
   */
  finish(): Similarity {
    if (this.tokens === 0) {
      throw new MetricError('NO_TOKENS', 'No similarity can be computed: no token has counted.', {
        hint: 'Give more text, or a mask that leaves some tokens.',
      });
    }
    const sums = emptySums(this.points);
    addSums(sums, this.#sums);
    if (this.#filled > 0) this.#consume(sums);
    return summarise(sums, this.points, this.ckaBatch);
  }

  /** Everything seen so far as a JSON value, to be continued later or elsewhere with `fromState`. */
  toState(): SimilarityState {
    const s = this.#sums;
    return {
      version: 1,
      points: this.points,
      hidden: this.hidden,
      ckaBatch: this.ckaBatch,
      tokens: s.tokens,
      ckaTokens: s.ckaTokens,
      cosine: [...s.cosine],
      angular: [...s.angular],
      relative: [...s.relative],
      hsic: [...s.hsic],
      energy: [...s.energy],
      zeros: [...s.zeros],
      pending: this.#pendingRows().map((row) => Array.from(row)),
    };
  }

  /** @throws MetricError `METRIC_STATE` where the value is not one that `toState` gave. */
  static fromState(state: unknown): SimilarityAccumulator {
    const parsed = parseSimilarityState(state);
    const accumulator = new SimilarityAccumulator(parsed);
    addSums(accumulator.#sums, {
      tokens: parsed.tokens,
      ckaTokens: parsed.ckaTokens,
      cosine: Float64Array.from(parsed.cosine),
      angular: Float64Array.from(parsed.angular),
      relative: Float64Array.from(parsed.relative),
      hsic: Float64Array.from(parsed.hsic),
      energy: Float64Array.from(parsed.energy),
      zeros: Float64Array.from(parsed.zeros),
    });
    return accumulator.add(parsed.pending.map((row) => Float32Array.from(row)));
  }

  /** Copies of the pending tokens, `[filled, hidden]` a point. */
  #pendingRows(): Float32Array[] {
    return Array.from({ length: this.points }, (_, point) => {
      const start = point * this.ckaBatch * this.hidden;
      return this.#pending.slice(start, start + this.#filled * this.hidden);
    });
  }

  /** Adds the pending minibatch to `sums`. */
  #consume(sums: Sums): void {
    const count = this.#filled;
    for (let token = 0; token < count; token++) this.#addToken(sums, token);
    sums.tokens += count;
    if (count >= MIN_HSIC_SAMPLES) this.#addMinibatch(sums, count);
  }

  #addToken(sums: Sums, token: number): void {
    const { points, hidden, ckaBatch } = this;
    const pairs = this.#pairs;
    gram(this.#pending, token * hidden, ckaBatch * hidden, points, hidden, pairs);
    for (let i = 0; i < points; i++) {
      const squaredI = pairs[i * points + i]!;
      if (squaredI === 0) sums.zeros[i]! += 1;
      for (let j = i + 1; j < points; j++) {
        const product = pairs[i * points + j]!;
        const squaredJ = pairs[j * points + j]!;
        const cosine = cosineOf(product, squaredI, squaredJ);
        sums.cosine[i * points + j]! += cosine;
        sums.angular[i * points + j]! += angularOf(cosine);
        let squared = squaredI + squaredJ - 2 * product;
        if (squared < CANCELLATION * (squaredI + squaredJ)) squared = this.#squaredDistance(token, i, j);
        const distance = Math.sqrt(squared);
        if (squaredI > 0) sums.relative[i * points + j]! += distance / Math.sqrt(squaredI);
        if (squaredJ > 0) sums.relative[j * points + i]! += distance / Math.sqrt(squaredJ);
      }
    }
  }

  #squaredDistance(token: number, i: number, j: number): number {
    const { hidden, ckaBatch } = this;
    const a = (i * ckaBatch + token) * hidden;
    const b = (j * ckaBatch + token) * hidden;
    let sum = 0;
    for (let c = 0; c < hidden; c++) {
      const difference = this.#pending[a + c]! - this.#pending[b + c]!;
      sum += difference * difference;
    }
    return sum;
  }

  #addMinibatch(sums: Sums, count: number): void {
    const { points, hidden, ckaBatch } = this;
    const size = triangleSize(count);
    const weight = count * hsicScale(count);
    for (let point = 0; point < points; point++) {
      gram(this.#pending, point * ckaBatch * hidden, hidden, count, hidden, this.#kernel);
      sums.energy[point]! += weight * uCentre(this.#kernel, count, this.#centred, point * size);
    }
    for (let i = 0; i < points; i++) {
      for (let j = i; j < points; j++) {
        sums.hsic[i * points + j]! += weight * dot(this.#centred, i * size, j * size, size);
      }
    }
    sums.ckaTokens += count;
  }
}

function checkSize(name: string, value: number, least: number): void {
  if (Number.isSafeInteger(value) && value >= least) return;
  throw new MetricError('METRIC_OPTIONS', `${name} is not a size this can work with.`, {
    expected: `a whole number, at least ${least}`,
    found: String(value),
  });
}

function emptySums(points: number): Sums {
  const square = points * points;
  return {
    tokens: 0,
    ckaTokens: 0,
    cosine: new Float64Array(square),
    angular: new Float64Array(square),
    relative: new Float64Array(square),
    hsic: new Float64Array(square),
    energy: new Float64Array(points),
    zeros: new Float64Array(points),
  };
}

function addSums(target: Sums, source: Sums): void {
  target.tokens += source.tokens;
  target.ckaTokens += source.ckaTokens;
  for (const key of ['cosine', 'angular', 'relative', 'hsic', 'energy', 'zeros'] as const) {
    const to = target[key];
    const from = source[key];
    for (let i = 0; i < to.length; i++) to[i]! += from[i]!;
  }
}

function summarise(sums: Sums, points: number, ckaBatch: number): Similarity {
  const { tokens } = sums;
  const upper = (i: number, j: number) => (i < j ? i * points + j : j * points + i);
  const matrix = (entry: (i: number, j: number) => number): Matrix =>
    Array.from({ length: points }, (_, i) => Array.from({ length: points }, (_, j) => entry(i, j)));
  const cosine = matrix((i, j) => (i === j ? 1 : sums.cosine[upper(i, j)]! / tokens));
  const deviation = Array.from({ length: points }, (_, i) => {
    const own = sums.hsic[i * points + i]!;
    return own > NO_VARIATION * sums.energy[i]! ? Math.sqrt(own) : 0;
  });
  return {
    points,
    tokens,
    ckaTokens: sums.ckaTokens,
    ckaBatch,
    cosine,
    angular: matrix((i, j) => (i === j ? 0 : sums.angular[upper(i, j)]! / tokens)),
    relativeL2: matrix((i, j) => {
      const counted = tokens - sums.zeros[i]!;
      return i === j || counted === 0 ? 0 : sums.relative[i * points + j]! / counted;
    }),
    cka:
      sums.ckaTokens === 0
        ? null
        : matrix((i, j) => {
            if (i === j) return 1;
            if (deviation[i] === 0 || deviation[j] === 0) return 0;
            // Two divisions, for the product of two tiny deviations could underflow; in one order for [i][j] and [j][i].
            const value = sums.hsic[upper(i, j)]! / deviation[Math.min(i, j)]! / deviation[Math.max(i, j)]!;
            return Math.max(-1, Math.min(1, value));
          }),
    blockInfluence: Array.from({ length: points - 1 }, (_, i) => 1 - cosine[i]![i + 1]!),
    zeroTokens: [...sums.zeros],
  };
}

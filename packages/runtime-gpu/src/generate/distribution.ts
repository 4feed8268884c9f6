import { InferenceError } from '../errors.js';
import { argmax } from './argmax.js';
import { decay, REACH, STEPS } from './decay.js';
import type { SamplingOptions } from './sampling.js';
import { type Scratch, scratchFor } from './scratch.js';

/** The tokens that can be drawn and their weights, in the order of the ids. */
export interface TokenDistribution {
  readonly ids: Int32Array;
  /** In proportion to the probabilities; all more than 0. */
  readonly weights: Float64Array;
  /** How many entries of both count. */
  readonly count: number;
  /** The sum of the weights. */
  readonly total: number;
}

/** Tokens are binned by how far they lie under the best. */
const BINS = REACH * STEPS + 1;
/** The bin of a token without weight. */
const NO_BIN = 0xffff;
const counts = new Int32Array(BINS);
const masses = new Float64Array(BINS);

/**
 * What is left of a row of logits after temperature, top-k, top-p and min-p.
 *
 * Nothing is sorted but one bin: tokens are binned by their distance from the best logit, the bins' counts and
 * sums tell in which of them top-k and top-p end, and only there the order matters. Of equal tokens those of lower
 * ids come first.
 *
 * @param logits `[vocabulary]`; NaN and -Infinity have no weight
 * @param options `temperature` must be more than 0
 * @returns a view of memory that the next call uses again
 * @throws InferenceError `NO_TOKEN_LEFT` when no token has weight
 */
export function tokenDistribution(logits: Float32Array, options: SamplingOptions): TokenDistribution {
  const { temperature = 1, topK = logits.length, topP = 1, minP = 0 } = options;
  const scratch = scratchFor(logits.length);
  const top = logits[likeliest(logits)]!;
  const limited = topK < logits.length || topP < 1;
  const total = weigh(logits, top, 1 / temperature, scratch, limited);
  if (!limited) return gather(scratch, minP, undefined);
  return gather(scratch, minP, cutAt(logits, scratch, total, topK, topP));
}

/**
 * The token of the highest logit, the first of equals.
 *
 * @throws InferenceError `NO_TOKEN_LEFT` when there is none
 */
export function likeliest(logits: Float32Array): number {
  const id = argmax(logits);
  if (logits[id]! > Number.NEGATIVE_INFINITY) return id;
  throw new InferenceError('NO_TOKEN_LEFT', 'No token can be chosen.', {
    expected: 'at least one token whose logit is a number and that is neither banned nor forbidden',
    found: 'none',
    hint: 'check the logit bias and the constraint; a model whose logits are no numbers is broken',
  });
}

/** Where the kept tokens end: all of the bins before `bin`, and of `bin` itself those in `ids`, ascending. */
interface Cut {
  readonly bin: number;
  readonly ids: readonly number[];
}

/** Fills the weights, and the bins where they are wanted; gives the weights' sum. */
function weigh(
  logits: Float32Array,
  top: number,
  sharpness: number,
  { weights, bins }: Scratch,
  binned: boolean,
): number {
  if (binned) {
    counts.fill(0);
    masses.fill(0);
  }
  let total = 0;
  for (let i = 0; i < logits.length; i++) {
    const logit = logits[i]!;
    // The best is set apart, since the difference of infinities is no number.
    const distance = logit === top ? 0 : (top - logit) * sharpness;
    if (!(distance < REACH)) {
      weights[i] = 0;
      bins[i] = NO_BIN;
      continue;
    }
    const weight = decay(distance);
    weights[i] = weight;
    total += weight;
    if (binned) {
      const bin = (distance * STEPS) | 0;
      bins[i] = bin;
      counts[bin]! += 1;
      masses[bin]! += weight;
    }
  }
  return total;
}

function cutAt(
  logits: Float32Array,
  scratch: Scratch,
  total: number,
  topK: number,
  topP: number,
): Cut | undefined {
  let last: Cut | undefined;
  let mass = total;
  if (topK < logits.length) {
    let before = 0;
    let bin = 0;
    mass = 0;
    while (bin < BINS && before + counts[bin]! < topK) {
      before += counts[bin]!;
      mass += masses[bin]!;
      bin++;
    }
    if (bin < BINS) {
      const ids = ranked(logits, scratch, bin).slice(0, topK - before);
      for (const id of ids) mass += scratch.weights[id]!;
      last = { bin, ids };
    }
  }
  if (topP < 1) {
    const wanted = topP * mass;
    let sum = 0;
    let bin = 0;
    const end = last?.bin ?? BINS - 1;
    while (bin < end && sum + masses[bin]! < wanted) sum += masses[bin++]!;
    const order = last?.bin === bin ? last.ids : ranked(logits, scratch, bin);
    let kept = 0;
    while (kept < order.length && sum < wanted) sum += scratch.weights[order[kept++]!]!;
    last = { bin, ids: order.slice(0, kept) };
  }
  return last && { bin: last.bin, ids: [...last.ids].sort((a, b) => a - b) };
}

/** The tokens of one bin, the most likely first, of equals the lower id. */
function ranked(logits: Float32Array, { bins }: Scratch, bin: number): number[] {
  const ids: number[] = [];
  for (let i = 0; i < bins.length; i++) if (bins[i] === bin) ids.push(i);
  return ids.sort((a, b) => logits[b]! - logits[a]! || a - b);
}

function gather(
  { weights, bins, ids, kept }: Scratch,
  minP: number,
  cut: Cut | undefined,
): TokenDistribution {
  let count = 0;
  let total = 0;
  let next = 0;
  const bin = cut?.bin ?? NO_BIN;
  for (let i = 0; i < weights.length; i++) {
    if (cut !== undefined && bins[i]! >= bin) {
      if (cut.ids[next] !== i) continue;
      next++;
    }
    const weight = weights[i]!;
    // The most likely token weighs 1, so this compares with it.
    if (weight === 0 || weight < minP) continue;
    ids[count] = i;
    kept[count] = weight;
    count++;
    total += weight;
  }
  return { ids, weights: kept, count, total };
}

/** @param random numbers in [0, 1); one is taken */
export function draw({ ids, weights, count, total }: TokenDistribution, random: () => number): number {
  let left = random() * total;
  for (let i = 0; i < count; i++) {
    left -= weights[i]!;
    if (left < 0) return ids[i]!;
  }
  // Rounding alone leads here.
  return ids[count - 1]!;
}

/** The probability of one token. */
export function probability(distribution: TokenDistribution, id: number): number {
  const { ids, weights, count, total } = distribution;
  let low = 0;
  let high = count;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (ids[middle]! < id) low = middle + 1;
    else high = middle;
  }
  return low < count && ids[low] === id ? weights[low]! / total : 0;
}

/**
 * What is drawn from where a token drafted from `drafted` was refused: max(0, p - q), p and q the probabilities.
 *
 * @param wanted p; its memory is used for the result
 */
export function excess(wanted: TokenDistribution, drafted: TokenDistribution): TokenDistribution {
  const { ids, weights } = wanted;
  let other = 0;
  let count = 0;
  let total = 0;
  for (let i = 0; i < wanted.count; i++) {
    const id = ids[i]!;
    while (other < drafted.count && drafted.ids[other]! < id) other++;
    const shared = drafted.ids[other] === id && other < drafted.count;
    const weight = weights[i]! / wanted.total - (shared ? drafted.weights[other]! / drafted.total : 0);
    if (weight <= 0) continue;
    ids[count] = id;
    weights[count] = weight;
    count++;
    total += weight;
  }
  // Two equal distributions: a refusal came of rounding.
  return count === 0 ? wanted : { ids, weights, count, total };
}

/** A copy that later calls of `tokenDistribution` leave alone. */
export function keepDistribution(distribution: TokenDistribution): TokenDistribution {
  const { ids, weights, count, total } = distribution;
  return { ids: ids.slice(0, count), weights: weights.slice(0, count), count, total };
}

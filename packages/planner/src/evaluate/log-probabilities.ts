/**
 * Loops over a vocabulary, written for speed: tens of thousands of exponentials a token, for every token and
 * every model.
 */

/** e to these powers and below adds nothing to a sum that holds e⁰: 50,000 of them are 2e-13. */
const NOTHING = -40;

const LOG2E = Math.LOG2E;
/** 2 to the power of −k at index k. */
const HALVINGS = Float64Array.from({ length: 64 }, (_, k) => 2 ** -k);
/** Taylor coefficients of 2^(u − ½) about u = 0: (ln 2)ⁿ / n! / √2. */
const TAYLOR = Array.from({ length: 8 }, (_, n) => {
  let coefficient = Math.SQRT1_2;
  for (let i = 1; i <= n; i++) coefficient *= Math.LN2 / i;
  return coefficient;
});
const [C0, C1, C2, C3, C4, C5, C6, C7] = TAYLOR as [
  number,
  number,
  number,
  number,
  number,
  number,
  number,
  number,
];

/**
 * e^x for x from −40 to 0, with a relative error below 1e-8; several times faster than `Math.exp`.
 *
 * x / ln 2 = −k + f with f in (−1, 0]; 2^f from its Taylor polynomial of degree 7 about −½.
 */
export function fastExp(x: number): number {
  const t = x * LOG2E;
  const k = -t | 0;
  const u = t + k + 0.5;
  return (C0 + u * (C1 + u * (C2 + u * (C3 + u * (C4 + u * (C5 + u * (C6 + u * C7))))))) * HALVINGS[k]!;
}

/** The norm of a row of logits, and its best token (the first of equals). */
export interface RowSummary {
  /** ln Σ exp(logits). */
  readonly logSumExp: number;
  readonly best: number;
}

/** `logits[start … start + size − 1]` summed up, in float64, with a relative error below 1e-8. */
export function summariseRow(logits: Float32Array, start: number, size: number): RowSummary {
  const end = start + size;
  let top = Number.NEGATIVE_INFINITY;
  let best = start;
  for (let i = start; i < end; i++) {
    if (logits[i]! > top) {
      top = logits[i]!;
      best = i;
    }
  }
  let sum = 0;
  for (let i = start; i < end; i++) {
    const x = logits[i]! - top;
    if (x > NOTHING) sum += fastExp(x);
  }
  return { logSumExp: top + Math.log(sum), best: best - start };
}

/** A distribution over a vocabulary without its many improbable tokens. */
export interface SparseDistribution {
  /** Tokens that are kept, ascending; 16 bits each where the vocabulary allows. */
  readonly ids: Uint16Array | Uint32Array;
  /** ln p of each. */
  readonly logs: Float32Array;
}

/** Bins of the histogram of ln p; each a quarter of a nat. */
const BINS = 4 * -NOTHING + 1;
const histogram = new Float64Array(BINS);

/**
 * The most probable tokens of a row, such that what is left out has a probability of `rest` at most, in all.
 *
 * @param norm `logSumExp` of the row
 */
export function sparse(
  logits: Float32Array,
  start: number,
  size: number,
  norm: number,
  rest: number,
): SparseDistribution {
  const end = start + size;
  histogram.fill(0);
  for (let i = start; i < end; i++) {
    const log = Math.min(0, logits[i]! - norm);
    if (log > NOTHING) histogram[(-4 * log) | 0]! += fastExp(log);
  }
  // From the improbable end upwards, as long as what is dropped stays within the rest.
  let bin = BINS;
  let dropped = 0;
  while (bin > 1 && dropped + histogram[bin - 1]! <= rest) dropped += histogram[--bin]!;
  const least = norm - bin / 4;
  let count = 0;
  for (let i = start; i < end; i++) if (logits[i]! > least) count += 1;
  const ids = size <= 0x10000 ? new Uint16Array(count) : new Uint32Array(count);
  const logs = new Float32Array(count);
  let next = 0;
  for (let i = start; i < end; i++) {
    if (logits[i]! > least) {
      ids[next] = i - start;
      logs[next++] = logits[i]! - norm;
    }
  }
  return { ids, logs };
}

/**
 * KL(P ‖ Q) in nats, of a distribution P kept in part and the row of logits of Q. The tokens that P leaves out
 * count as one: their part of the sum is right where P and Q are in proportion there, and else too small, by no
 * more than their probability times the divergence among them (log sum inequality). Never below 0.
 *
 * @param norm `logSumExp` of the row
 */
export function sparseDivergence(
  p: SparseDistribution,
  logits: Float32Array,
  start: number,
  norm: number,
): number {
  const { ids, logs } = p;
  let sum = 0;
  let massP = 0;
  let massQ = 0;
  for (let i = 0; i < ids.length; i++) {
    const log = logs[i]!;
    const other = logits[start + ids[i]!]! - norm;
    const weight = fastExp(Math.min(log, 0));
    sum += weight * (log - other);
    massP += weight;
    if (other > NOTHING) massQ += fastExp(Math.min(other, 0));
  }
  const restP = 1 - massP;
  const restQ = 1 - massQ;
  // Below this, what is left is the rounding of the sums.
  if (restP > 1e-6 && restQ > 1e-6) sum += restP * Math.log(restP / restQ);
  return Math.max(0, sum);
}

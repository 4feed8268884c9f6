/** Natural logarithm of Σ exp(logits[start … start + size − 1]), in float64. */
export function logSumExp(logits: Float32Array, start: number, size: number): number {
  let top = Number.NEGATIVE_INFINITY;
  for (let i = start; i < start + size; i++) if (logits[i]! > top) top = logits[i]!;
  let sum = 0;
  for (let i = start; i < start + size; i++) sum += Math.exp(logits[i]! - top);
  return top + Math.log(sum);
}

/**
 * KL(P ‖ Q) = Σ P (ln P − ln Q) of the distributions that two rows of logits stand for, in nats, in float64.
 * Never below 0: what rounding takes it below is cut off.
 */
export function klDivergence(p: Float32Array, q: Float32Array, start: number, size: number): number {
  const normP = logSumExp(p, start, size);
  const normQ = logSumExp(q, start, size);
  let sum = 0;
  for (let i = start; i < start + size; i++) {
    const logP = p[i]! - normP;
    const weight = Math.exp(logP);
    if (weight > 0) sum += weight * (logP - (q[i]! - normQ));
  }
  return Math.max(0, sum);
}

/** The best of a row and how far ahead of the second best it is. */
export function best(logits: Float32Array, start: number, size: number): { index: number; margin: number } {
  let index = 0;
  let first = Number.NEGATIVE_INFINITY;
  let second = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < size; i++) {
    const value = logits[start + i]!;
    if (value > first) {
      second = first;
      first = value;
      index = i;
    } else if (value > second) {
      second = value;
    }
  }
  return { index, margin: first - second };
}

import type { Bypass } from '@cqil/core';

/** What one layer of a group adds to the stream, each as long as x; absent parts are `undefined`. */
export interface Contributions {
  /** a_j: what the attention adds. */
  readonly attention: Float64Array | undefined;
  /** Whether the FFNs of other layers may see it; not so in parallel blocks, where no bypass exists. */
  readonly passedOn: boolean;
}

/**
 * What the FFN of layer j of a group reads (CQIL, arXiv 2404.06709; `'full'`: Layer Parallelism, arXiv 2502.02790):
 *
 *     f_j = x + a_j + Σ a_k   over the min(d, j) layers k before j in the group; for 'full' over all the others
 *
 * Sums are float64.
 */
export function ffnInput(
  x: Float64Array,
  members: readonly Contributions[],
  j: number,
  bypass: Bypass,
): Float64Array {
  const sum = Float64Array.from(x);
  for (const [k, { attention, passedOn }] of members.entries()) {
    if (attention === undefined) continue;
    const reaches = bypass === 'full' || (k < j && j - k <= bypass);
    if (k === j || (reaches && passedOn)) addInto(sum, attention);
  }
  return sum;
}

/** What leaves a group: y = x + Σ_j (a_j + m_j), each contribution once, whatever the bypass was. */
export function groupOutput(x: Float64Array, contributions: readonly Float64Array[]): Float64Array {
  const sum = Float64Array.from(x);
  for (const contribution of contributions) addInto(sum, contribution);
  return sum;
}

export function addInto(sum: Float64Array, term: Float64Array): void {
  for (let i = 0; i < sum.length; i++) sum[i] = (sum[i] as number) + (term[i] as number);
}

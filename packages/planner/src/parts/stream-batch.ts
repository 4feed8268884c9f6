import { MetricError, UsageError } from '@cqil/core';

/** A state of the residual stream, or what a branch adds to it, for a batch of equally long sequences. */
export interface StreamBatch {
  /** Row-major. */
  readonly data: Float32Array;
  /** `[batch, sequence, hidden]` */
  readonly dims: readonly [batch: number, sequence: number, hidden: number];
}

/** The sum of states and contributions of one shape, in float32, in the order given. */
export function sumOf(first: StreamBatch, ...others: readonly StreamBatch[]): StreamBatch {
  const data = Float32Array.from(first.data);
  for (const { data: term } of others) for (let i = 0; i < data.length; i++) data[i]! += term[i]!;
  return { data, dims: first.dims };
}

/**
 * @param where what made the values: `layer 3, attention`
 * @throws MetricError `ACTIVATION_NOT_FINITE`
 */
export function requireFinite(values: Float32Array, where: string): void {
  // 0 · v is 0 for every finite v and no number for all others: one pass without branches.
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i]! * 0;
  if (sum === 0) return;
  const at = values.findIndex((value) => !Number.isFinite(value));
  throw new MetricError('ACTIVATION_NOT_FINITE', `The model computes values that are no numbers: ${where}.`, {
    expected: 'finite activations',
    found: `${values[at]} at element ${at}`,
    hint: 'Half precision overflows in some models: use the model in float32.',
  });
}

/**
 * Refuses what cannot be a batch of equally long sequences.
 *
 * @throws UsageError `PARTS_SEQUENCES`
 */
export function requireBatch(ids: readonly (readonly number[])[]): void {
  const length = ids[0]?.length ?? 0;
  if (length > 0 && ids.every((row) => row.length === length)) return;
  throw new UsageError('PARTS_SEQUENCES', 'These sequences cannot be run as one batch.', {
    expected: 'one sequence or more, of one token or more, all of one length',
    found: `lengths ${ids.map((row) => row.length).join(', ') || 'none'}`,
  });
}

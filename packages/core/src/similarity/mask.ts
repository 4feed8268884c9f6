import { MetricError } from '../errors.js';

/** One flag a token: 0 or `false` leaves the token out. */
export type TokenMask = ArrayLike<number | boolean | bigint>;

/** What `tokenMask` needs to know of a batch. */
export interface TokenMaskOptions {
  readonly batch: number;
  readonly sequence: number;
  /** `[batch, sequence]`, row-major, 0 for padding (left or right). Absent: no padding. */
  readonly attentionMask?: TokenMask;
  /** Leave out this many real tokens at the start of each sequence (default 0). */
  readonly skipFirst?: number;
}

/**
 * The mask that leaves out padding and the first tokens of each sequence.
 *
 * Decoder models put activations of another scale on a sequence's first token ("massive activations",
 * arXiv 2402.17762); a few of them would decide every mean. `skipFirst: 1` leaves them out.
 *
 * @returns `[batch * sequence]`, 1 for the tokens that count.
 * @throws MetricError `ACTIVATION_SHAPE` where the attention mask has another size.
 */
export function tokenMask(options: TokenMaskOptions): Uint8Array {
  const { batch, sequence, attentionMask, skipFirst = 0 } = options;
  const size = batch * sequence;
  if (attentionMask !== undefined && attentionMask.length !== size) {
    throw new MetricError('ACTIVATION_SHAPE', 'The attention mask does not fit the batch.', {
      expected: `${batch} x ${sequence} = ${size} flags`,
      found: `${attentionMask.length}`,
    });
  }
  const mask = new Uint8Array(size);
  for (let row = 0; row < batch; row++) {
    let seen = 0;
    for (let column = 0; column < sequence; column++) {
      const at = row * sequence + column;
      if (attentionMask !== undefined && !isKept(attentionMask, at)) continue;
      if (seen++ >= skipFirst) mask[at] = 1;
    }
  }
  return mask;
}

/** Whether token `at` counts under `mask`; all do without one. */
export function isKept(mask: TokenMask | undefined, at: number): boolean {
  return mask === undefined || Boolean(mask[at]);
}

import { InferenceError } from '../errors.js';

/** Token ids and masks of a batch, every row of one length. */
export interface PaddedBatch {
  /** `[batch, seq]`; padding is on the left. */
  readonly ids: readonly (readonly number[])[];
  /** `[batch, seq]`, 1 for tokens and 0 for padding. */
  readonly mask: readonly (readonly number[])[];
}

/**
 * Brings sequences to one length by padding on the left, where the last token of each stays last.
 *
 * @param mask for sequences that are padded already, 0 where the padding is
 * @param padId any id of the vocabulary; what stands there is not attended to
 * @throws InferenceError `TOKENS_INVALID` for an empty batch, an empty sequence, something that is no token id,
 *   or a mask of another shape.
 */
export function padLeft(
  sequences: readonly (readonly number[])[],
  mask?: readonly (readonly number[])[],
  padId = 0,
): PaddedBatch {
  const length = Math.max(0, ...sequences.map((sequence) => sequence.length));
  if (sequences.length === 0 || sequences.some((sequence) => sequence.length === 0)) {
    throw invalid(
      'at least one sequence of at least one token',
      `${sequences.length} sequences, the shortest empty`,
    );
  }
  for (const sequence of sequences) {
    const wrong = sequence.find((id) => !Number.isSafeInteger(id) || id < 0);
    if (wrong !== undefined) throw invalid('whole numbers of 0 or more as token ids', String(wrong));
  }
  if (mask !== undefined) {
    const fits =
      mask.length === sequences.length && sequences.every((row, i) => row.length === mask[i]?.length);
    if (!fits) throw invalid('a mask of the same shape as the token ids', 'another shape');
  }
  const fill = (row: readonly number[], value: number) => [
    ...new Array<number>(length - row.length).fill(value),
    ...row,
  ];
  return {
    ids: sequences.map((sequence) => fill(sequence, padId)),
    mask: sequences.map((sequence, i) => fill(mask?.[i] ?? new Array<number>(sequence.length).fill(1), 0)),
  };
}

/**
 * The position of every token among the tokens of its row, padding not counted; 1 at padding, as Transformers
 * and Transformers.js have it.
 *
 * @param mask `[batch, past + seq]`
 * @param count how many positions at the end are wanted (`seq`)
 */
export function positions(mask: readonly (readonly number[])[], count: number): number[][] {
  return mask.map((row) => {
    let seen = 0;
    const all = row.map((attended) => {
      seen += attended;
      return attended ? seen - 1 : 1;
    });
    return all.slice(row.length - count);
  });
}

function invalid(expected: string, found: string): InferenceError {
  return new InferenceError('TOKENS_INVALID', 'The token ids cannot be used as a batch.', {
    expected,
    found,
  });
}

import { integerTensor } from '../tensor/make.js';
import type { TensorValue } from '../tensor/types.js';
import type { DecoderInputs } from './signature.js';

export interface RowFeedRequest {
  /** New tokens of each row, which may differ in number. */
  readonly ids: readonly (readonly number[])[];
  /** Tokens that each row has already. */
  readonly past: readonly number[];
  readonly keepLast: boolean;
}

/** What a decoder wants besides its cache, for rows that begin together and are padded on the right. */
export function rowFeeds(
  signature: DecoderInputs,
  { ids, past, keepLast }: RowFeedRequest,
): Record<string, TensorValue> {
  const { inputIds, attentionMask, positionIds, logitsToKeep } = signature;
  const batch = ids.length;
  const width = Math.max(...ids.map((row) => row.length));
  const total = Math.max(...ids.map((row, i) => row.length + past[i]!));
  const feeds: Record<string, TensorValue> = {};
  const give = (
    info: typeof inputIds | undefined,
    columns: number,
    at: (row: number, column: number) => number,
  ) => {
    if (info === undefined) return;
    const values = new Array<number>(batch * columns);
    for (let row = 0; row < batch; row++) {
      for (let column = 0; column < columns; column++) values[row * columns + column] = at(row, column);
    }
    feeds[info.name] = integerTensor(info.elementType, values, [batch, columns]);
  };
  give(inputIds, width, (row, column) => ids[row]![column] ?? 0);
  give(positionIds, width, (row, column) => (column < ids[row]!.length ? past[row]! + column : 1));
  if (attentionMask !== undefined) {
    const { name, elementType } = attentionMask;
    feeds[name] = rowsOfOnes(
      elementType,
      ids.map((row, i) => row.length + past[i]!),
      total,
    );
  }
  if (logitsToKeep !== undefined) {
    const { name, elementType, shape } = logitsToKeep;
    feeds[name] = integerTensor(elementType, [keepLast ? 1 : 0], shape.length === 0 ? [] : [1]);
  }
  return feeds;
}

/** Read only: masks of one row are views of it. */
let ones = new BigInt64Array();

function onesOf(count: number): BigInt64Array {
  if (ones.length < count) ones = new BigInt64Array(2 * count).fill(1n);
  return ones.subarray(0, count);
}

/** `[rows, width]`: so many ones in each row, then zeros. Made without a number for each element: it is long. */
function rowsOfOnes(type: TensorValue['type'], counts: readonly number[], width: number): TensorValue {
  const dims = [counts.length, width];
  if (type !== 'int64') {
    const values = counts.flatMap((count) => Array.from({ length: width }, (_, i) => (i < count ? 1 : 0)));
    return integerTensor(type, values, dims);
  }
  if (counts.length === 1 && counts[0] === width) return { type, dims, data: onesOf(width) };
  const data = new BigInt64Array(counts.length * width);
  for (const [row, count] of counts.entries()) data.set(onesOf(count), row * width);
  return { type, dims, data };
}

import type { ValueInfo } from '../session/types.js';
import { integerTensor, zeroTensor } from '../tensor/make.js';
import type { TensorValue } from '../tensor/types.js';
import { positions } from './padding.js';
import type { DecoderInputs, PastInput } from './signature.js';

export interface FeedRequest {
  /** The new tokens, `[batch, seq]`, every row of one length. */
  readonly ids: readonly (readonly number[])[];
  /** `[batch, past + seq]`, 0 at padding. */
  readonly mask: readonly (readonly number[])[];
  /** Cache tensors by input name; an empty cache when absent. */
  readonly past?: Readonly<Record<string, TensorValue>>;
  readonly keepLast?: boolean;
}

/** The tensors that a decoder graph wants for these tokens, one for each of its inputs. */
export function decoderFeeds(inputs: DecoderInputs, request: FeedRequest): Record<string, TensorValue> {
  const { ids, mask } = request;
  const feeds: Record<string, TensorValue> = {};
  const give = (input: ValueInfo | undefined, rows: readonly (readonly number[])[]) => {
    if (input === undefined) return;
    feeds[input.name] = integerTensor(input.elementType, rows.flat(), [rows.length, rows[0]!.length]);
  };
  give(inputs.inputIds, ids);
  give(inputs.attentionMask, mask);
  if (inputs.positionIds !== undefined) give(inputs.positionIds, positions(mask, ids[0]!.length));
  if (inputs.logitsToKeep !== undefined) {
    const { name, elementType, shape } = inputs.logitsToKeep;
    feeds[name] = integerTensor(elementType, [request.keepLast ? 1 : 0], shape.length === 0 ? [] : [1]);
  }
  return Object.assign(feeds, request.past ?? emptyCache(inputs.past, ids.length));
}

/** The cache before any token: no positions, and zeros for states that do not grow. */
function emptyCache(inputs: readonly PastInput[], batch: number): Record<string, TensorValue> {
  return Object.fromEntries(
    inputs.map(({ past, batchAxis, sequenceAxis }) => {
      const dims = past.shape.map((dim, axis) => {
        if (axis === sequenceAxis) return 0;
        return axis === batchAxis ? batch : Number(dim);
      });
      return [past.name, zeroTensor(past.elementType, dims)];
    }),
  );
}

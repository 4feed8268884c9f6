import type { DecoderSignature, ValueInfo } from '@cqil/runtime-gpu';
import type { Feeds, OrtTensor } from '../ort.js';
import type { CacheState } from './cache-state.js';
import { stateOf } from './cache-tensor.js';

/** What a run of a decoder is asked to do, read off its feeds. */
export interface DecoderStep {
  readonly batch: number;
  /** New tokens of each row. */
  readonly count: number;
  /** The cache that is continued: one of the backend's own, or tensors of the program's. */
  readonly state: CacheState | undefined;
  readonly pastLength: number;
  /** Whether every position counts, so that a cache without gaps holds them all. */
  readonly unpadded: boolean;
  /** Of a single sequence without padding. */
  readonly tokens: { readonly ids: number[]; readonly positions: number[] | undefined } | undefined;
  /** How many positions' logits are wanted, where the graph is told: 0 for all. */
  readonly logitsToKeep: number | undefined;
}

/** `undefined` for feeds that are no step as this package knows them: those run as they are. */
export function readStep(signature: DecoderSignature, feeds: Feeds): DecoderStep | undefined {
  const { inputIds, attentionMask, positionIds, logitsToKeep, cache } = signature;
  const ids = feeds[inputIds.name]!;
  const [batch, count] = ids.dims;
  if (ids.dims.length !== 2 || !batch || !count || !isIntegers(ids, inputIds)) return undefined;

  const pasts = cache.map(({ past }) => feeds[past.name]!);
  const lengths = new Set(
    pasts.map(({ dims }, i) =>
      dims.length === cache[i]!.past.shape.length ? dims[cache[i]!.sequenceAxis!] : undefined,
    ),
  );
  const [pastLength] = lengths;
  if (lengths.size !== 1 || pastLength === undefined) return undefined;
  if (pasts.some(({ dims }, i) => dims[cache[i]!.batchAxis] !== batch)) return undefined;

  const mask = attentionMask === undefined ? undefined : feeds[attentionMask.name]!;
  const unpadded = mask === undefined || isAllOnes(mask, attentionMask!, batch, pastLength + count);
  const positions = positionIds === undefined ? undefined : feeds[positionIds.name]!;
  const plain =
    batch === 1 &&
    unpadded &&
    (positions === undefined ||
      (isIntegers(positions, positionIds!) && positions.dims.join() === `1,${count}`));
  return {
    batch,
    count,
    state: stateOf(pasts),
    pastLength,
    unpadded,
    tokens: plain
      ? { ids: numbers(ids), positions: positions === undefined ? undefined : numbers(positions) }
      : undefined,
    logitsToKeep: logitsToKeep === undefined ? undefined : numbers(feeds[logitsToKeep.name]!)[0],
  };
}

function isIntegers({ type }: OrtTensor, { elementType }: ValueInfo): boolean {
  return type === elementType && (type === 'int64' || type === 'int32');
}

function numbers({ data }: OrtTensor): number[] {
  return Array.from(data as BigInt64Array | Int32Array, Number);
}

function isAllOnes(mask: OrtTensor, { elementType }: ValueInfo, batch: number, width: number): boolean {
  if (mask.type !== elementType || mask.dims.join() !== `${batch},${width}`) return false;
  const one = mask.type === 'int64' ? 1n : 1;
  return (mask.data as unknown as (bigint | number)[]).every((value) => value === one);
}

import { InferenceError } from '../errors.js';
import { freeTensor } from '../session/native/adopted-tensor.js';
import type { CachePair } from '../signature/signature.js';
import { zeroTensor } from '../tensor/make.js';
import type { TensorValue } from '../tensor/types.js';
import { assertLength } from './in-place-cache.js';
import { stale } from './lineage.js';
import type { DecoderCache } from './types.js';

/** A cache of tensors as a graph's outputs gave them, for its inputs to take as they are. */
export class KeptCache implements DecoderCache {
  readonly mask: readonly (readonly number[])[];
  readonly length: number;
  readonly #pairs: readonly CachePair[];
  #tensors: Readonly<Record<string, TensorValue>> | undefined;

  constructor(
    pairs: readonly CachePair[],
    mask: readonly (readonly number[])[],
    tensors: Readonly<Record<string, TensorValue>>,
  ) {
    this.mask = mask;
    this.length = mask[0]?.length ?? 0;
    this.#pairs = pairs;
    this.#tensors = tensors;
  }

  /** The tensors themselves, to be fed and not to be handed out: `dispose` frees them. @throws `CACHE_STALE` */
  get kept(): Readonly<Record<string, TensorValue>> {
    if (this.#tensors === undefined) throw stale('a cache in use', 'one that was disposed');
    return this.#tensors;
  }

  get tensors(): Record<string, TensorValue> {
    return Object.fromEntries(
      Object.entries(this.kept).map(([name, tensor]) => [
        name,
        { ...tensor, data: tensor.data.slice() } as TensorValue,
      ]),
    );
  }

  truncate(length: number): KeptCache {
    assertLength(length, this.length);
    const kept = this.kept;
    const tensors = Object.fromEntries(
      this.#pairs
        .filter((pair) => kept[pair.past.name] !== undefined)
        .map((pair) => [pair.past.name, firstPositions(kept[pair.past.name]!, pair, length)]),
    );
    this.dispose();
    return new KeptCache(
      this.#pairs,
      this.mask.map((row) => row.slice(0, length)),
      tensors,
    );
  }

  dispose(): void {
    for (const tensor of Object.values(this.#tensors ?? {})) freeTensor(tensor);
    this.#tensors = undefined;
  }
}

/** A copy of the first positions along the axis where the sequence runs. */
function firstPositions(tensor: TensorValue, pair: CachePair, length: number): TensorValue {
  const axis = pair.sequenceAxis;
  if (axis === undefined) {
    throw new InferenceError('CACHE_INDIVISIBLE', `The state "${pair.past.name}" cannot be cut back.`, {
      expected: 'keys and values, position by position',
      found: 'a state of fixed size, which holds all tokens at once',
      hint: 'Feed the shorter prompt again.',
    });
  }
  const dims = tensor.dims.map((dim, i) => (i === axis ? length : dim));
  const inner = tensor.dims.slice(axis + 1).reduce((product, dim) => product * dim, 1);
  const outer = tensor.dims.slice(0, axis).reduce((product, dim) => product * dim, 1);
  const out = zeroTensor(tensor.type, dims);
  const from = tensor.data as Float32Array;
  const to = out.data as Float32Array;
  const stride = tensor.dims[axis]! * inner;
  for (let i = 0; i < outer; i++) {
    to.set(from.subarray(i * stride, i * stride + length * inner), i * length * inner);
  }
  return out;
}

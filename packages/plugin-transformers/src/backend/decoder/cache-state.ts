import {
  type BufferShape,
  type CachePair,
  elementCount,
  freeTensor,
  type InPlaceCache,
  type KeyValueBuffers,
  type TensorValue,
  zeroTensor,
} from '@cqil/runtime-gpu';
import { SharedMemory } from './memory.js';
import type { Tokens } from './tokens.js';

type NumberArray = Exclude<TensorValue['data'], string[]>;

/** Keys and values after some tokens, entry by entry in the order of the graph's cache inputs. */
export interface CacheState {
  /** Positions in it, padding included. */
  readonly length: number;
  readonly memory: SharedMemory;
  /** What is in it; `undefined` where that is not known for sure. */
  readonly tokens: Tokens | undefined;
  /** Bytes of its memory, room included. */
  readonly bytes: number;
  type(entry: number): TensorValue['type'];
  dims(entry: number): readonly number[];
  /** The elements: the memory itself where it holds nothing else, else a copy. */
  read(entry: number): TensorValue;
  /** The first positions of an entry, as memory of its own. */
  readFirst(entry: number, length: number): TensorValue;
}

/** In memory that attention operators write in place, and that goes on growing behind this state. */
export class InPlaceState implements CacheState {
  readonly cache: InPlaceCache;
  readonly tokens: Tokens | undefined;
  readonly length: number;
  readonly #shapes: readonly BufferShape[];

  constructor(cache: InPlaceCache, shapes: readonly BufferShape[], tokens: Tokens | undefined) {
    this.cache = cache;
    this.tokens = tokens;
    this.length = cache.length;
    this.#shapes = shapes;
  }

  get memory(): SharedMemory {
    return memoryOf(this.cache.buffers);
  }

  get bytes(): number {
    return this.cache.buffers.byteLength;
  }

  type(entry: number): TensorValue['type'] {
    return this.#shapes[entry]!.type;
  }

  dims(entry: number): readonly number[] {
    const { heads, size } = this.#shapes[entry]!;
    return [this.cache.buffers.batch, heads, this.length, size];
  }

  read(entry: number): TensorValue {
    return this.readFirst(entry, this.length);
  }

  readFirst(entry: number, length: number): TensorValue {
    const { past, type } = this.#shapes[entry]!;
    const { buffers } = this.cache;
    buffers.lineage.assertValid(this.cache);
    const whole = buffers.bindings().feeds[past]!;
    return firstPositions({ type, dims: whole.dims, data: whole.memory } as TensorValue, 2, length);
  }
}

const memories = new WeakMap<KeyValueBuffers, SharedMemory>();

/** All states over the same buffers share it. */
export function memoryOf(buffers: KeyValueBuffers): SharedMemory {
  let memory = memories.get(buffers);
  if (memory === undefined) {
    // Weakly: what is remembered for the buffers must not keep them.
    const reference = new WeakRef(buffers);
    memory = new SharedMemory(() => reference.deref()?.dispose());
    memories.set(buffers, memory);
  }
  return memory;
}

/** As a run's outputs, in memory that ONNX Runtime made for them. */
export class OutputState implements CacheState {
  readonly memory: SharedMemory;
  readonly length: number;
  readonly #pairs: readonly CachePair[];
  readonly #values: readonly TensorValue[];
  readonly #tokens: Tokens | undefined;

  constructor(
    pairs: readonly CachePair[],
    values: readonly TensorValue[],
    length: number,
    tokens: Tokens | undefined,
  ) {
    this.#pairs = pairs;
    this.#values = values;
    this.#tokens = tokens;
    this.length = length;
    this.memory = new SharedMemory(() => values.forEach(freeTensor));
  }

  get tokens(): Tokens | undefined {
    // A program that holds the elements may have changed them.
    return this.memory.exposed ? undefined : this.#tokens;
  }

  get bytes(): number {
    return this.#values.reduce((sum, { data }) => sum + (data as NumberArray).byteLength, 0);
  }

  type(entry: number): TensorValue['type'] {
    return this.#values[entry]!.type;
  }

  dims(entry: number): readonly number[] {
    return this.#values[entry]!.dims;
  }

  read(entry: number): TensorValue {
    return this.#values[entry]!;
  }

  readFirst(entry: number, length: number): TensorValue {
    return firstPositions(this.read(entry), this.#pairs[entry]!.sequenceAxis!, length);
  }
}

/** A copy of the first positions along an axis. */
export function firstPositions(tensor: TensorValue, axis: number, length: number): TensorValue {
  const out = zeroTensor(
    tensor.type,
    tensor.dims.map((dim, i) => (i === axis ? length : dim)),
  );
  copyPositions(tensor, out, axis, length);
  return out;
}

/** Copies the first positions along an axis; the two may be of different length there. */
export function copyPositions(
  from: Pick<TensorValue, 'dims' | 'data'>,
  to: Pick<TensorValue, 'dims' | 'data'>,
  axis: number,
  positions: number,
): void {
  const inner = elementCount(from.dims.slice(axis + 1));
  const outer = elementCount(from.dims.slice(0, axis));
  const source = from.data as Float32Array;
  const target = to.data as Float32Array;
  for (let i = 0; i < outer; i++) {
    const start = i * from.dims[axis]! * inner;
    target.set(source.subarray(start, start + positions * inner), i * to.dims[axis]! * inner);
  }
}

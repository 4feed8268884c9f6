import { elementCount } from '@cqil/runtime-gpu';
import type { OrtTensor, OrtTensorClass } from '../ort.js';
import { toTensor } from '../tensors.js';
import { type CacheState, OutputState } from './cache-state.js';

/** What stands behind a tensor that the backend handed out as a part of a cache. */
interface Origin {
  readonly state: CacheState;
  readonly entry: number;
}

const origins = new WeakMap<OrtTensor, Origin>();

/**
 * The cache that these tensors are, one for each entry and in their order; `undefined` where they are anything else:
 * tensors of the program's own, parts of different caches, or some whose elements or dimensions may have been changed.
 */
export function stateOf(tensors: readonly OrtTensor[]): CacheState | undefined {
  const state = originOf(tensors[0])?.state;
  if (state === undefined) return undefined;
  return tensors.every((tensor, entry) => {
    const origin = originOf(tensor);
    return origin?.state === state && origin.entry === entry && sameDims(tensor.dims, state.dims(entry));
  })
    ? state
    : undefined;
}

function originOf(tensor: OrtTensor | undefined): Origin | undefined {
  return tensor === undefined || tensor.location === 'none' ? undefined : origins.get(tensor);
}

function sameDims(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((dim, axis) => dim === b[axis]);
}

export type CacheTensorClass = new (state: CacheState, entry: number) => OrtTensor;

const NOTHING = new Float32Array(0);

/** `data` and `dispose` are overridden, which TypeScript allows of members that are declared alike only. */
interface PlainTensor extends Omit<OrtTensor, 'data' | 'dispose'> {
  dispose(): void;
}

/**
 * Tensors that stand for an entry of a cache. To a program they are what onnxruntime-node gives on a CPU, an ordinary
 * tensor with `location` `cpu`, and like one they hold their numbers for as long as they live, whatever becomes of the
 * cache. (Handles on a device, `gpu-buffer`, would be freed by Transformers.js as soon as a cache object moves on, also
 * where the program still has them in another one.) Only the numbers come late: when `data` is asked for.
 */
export function cacheTensorClass(Tensor: OrtTensorClass): CacheTensorClass {
  const Base = Tensor as unknown as new (
    type: 'float32',
    data: Float32Array,
    dims: readonly number[],
  ) => PlainTensor;

  class CacheTensor extends Base {
    #state: CacheState | undefined;
    readonly #entry: number;
    #data: OrtTensor['data'] | undefined;

    constructor(state: CacheState, entry: number) {
      super('float32', NOTHING, [0]);
      const dims = [...state.dims(entry)];
      Object.assign(this as object, {
        type: state.type(entry),
        dims,
        size: elementCount(dims),
        cpuData: undefined,
      });
      this.#state = state;
      this.#entry = entry;
      state.memory.retain();
      origins.set(this as unknown as OrtTensor, { state, entry });
    }

    get data(): OrtTensor['data'] {
      if (this.location === 'none') throw new Error('The tensor is disposed.');
      this.#data ??= this.#read();
      return this.#data;
    }

    override dispose(): void {
      super.dispose();
      this.#data = undefined;
      this.#letGo();
    }

    #read(): OrtTensor['data'] {
      const state = this.#state!;
      const { data } = toTensor(Tensor, state.read(this.#entry));
      if (state instanceof OutputState) {
        state.memory.exposed = true;
      } else {
        // A copy, which the program may change: from here on the tensor is one of the program's own.
        this.#letGo();
      }
      return data;
    }

    #letGo(): void {
      origins.delete(this as unknown as OrtTensor);
      this.#state?.memory.release();
      this.#state = undefined;
    }
  }

  return CacheTensor as unknown as CacheTensorClass;
}

import { InferenceError } from '../errors.js';
import type { ResidentTensor } from '../session/native/resident-tensor.js';
import type { TensorValue } from '../tensor/types.js';

/** Memory, and the tensors over parts of it. Neither is kept from being collected. */
interface Holding {
  readonly memory: WeakRef<object>;
  readonly bytes: number;
  readonly tensors: WeakRef<ResidentTensor>[];
}

/**
 * How many bytes runs may have for what stays from run to run: caches, in the main. Memory counts as long as there is a
 * tensor over it that was not disposed.
 */
export class MemoryLimit {
  readonly #model: string;
  readonly #most: number;
  #holdings: Holding[] = [];

  constructor(model: string, most: number) {
    this.#model = model;
    this.#most = most;
  }

  /** Bytes that are held. */
  get used(): number {
    this.#holdings = this.#holdings.filter(({ tensors }) =>
      tensors.some((tensor) => tensor.deref()?.disposed === false),
    );
    return this.#holdings.reduce((sum, { bytes }) => sum + bytes, 0);
  }

  /**
   * Makes a tensor over memory, if that is allowed.
   *
   * @throws InferenceError `EXECUTOR_OUT_OF_MEMORY`; what `make` throws
   */
  admit(tensor: TensorValue, make: () => ResidentTensor): ResidentTensor {
    const memory = 'buffer' in tensor.data ? tensor.data.buffer : tensor.data;
    const known = this.#holdings.find((holding) => holding.memory.deref() === memory);
    if (known !== undefined) {
      const made = make();
      known.tensors.push(new WeakRef(made));
      return made;
    }
    const bytes = 'byteLength' in memory ? memory.byteLength : 0;
    const used = this.used;
    if (used + bytes > this.#most) {
      throw new InferenceError('EXECUTOR_OUT_OF_MEMORY', `There is no memory left for ${this.#model}.`, {
        expected: `at most ${this.#most} bytes for its caches`,
        found: `${used} bytes held, and ${bytes} more to be had`,
        hint: 'Dispose caches that are not needed, ask for shorter ones, or raise `cacheBytes`. Other caches are as they were.',
      });
    }
    const made = make();
    this.#holdings.push({ memory: new WeakRef(memory), bytes, tensors: [new WeakRef(made)] });
    return made;
  }
}

import type { Logits } from '../decoder/logits.js';
import { canRewind, type StepCache, type StepModel } from '../decoder/step-model.js';
import type { PrefixCache } from './prefix-cache.js';

export interface ReaderOptions {
  /** Positions that will be needed in all. */
  readonly capacity: number;
  /** Where the cache comes from and goes back to. */
  readonly kept?: PrefixCache | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface ReadOptions {
  /** Memory for the logits of all of these tokens, where they are wanted; that of before will do. */
  readonly into?: Float32Array | undefined;
  /** Instead of the reader's own. */
  readonly signal?: AbortSignal | undefined;
}

/** Feeds one sequence to a model and owns the cache of what it has read. */
export class SequenceReader {
  readonly #model: StepModel;
  readonly #options: ReaderOptions;
  readonly #ids: number[] = [];
  #cache: StepCache | undefined;
  /** One position's logits, step after step. */
  #logits: Float32Array | undefined;

  constructor(model: StepModel, options: ReaderOptions) {
    this.#model = model;
    this.#options = options;
  }

  /** How many tokens the model has read. */
  get length(): number {
    return this.#ids.length;
  }

  /**
   * Begins with what an earlier generation left of these tokens. The last is always left to read, since its
   * logits are wanted.
   *
   * @returns how many tokens need not be read
   */
  resume(ids: readonly number[]): number {
    const read = this.#options.kept?.take(this.#model);
    if (read === undefined) return 0;
    let shared = 0;
    const limit = Math.min(read.ids.length, ids.length - 1);
    while (shared < limit && read.ids[shared] === ids[shared]) shared++;
    if (shared === 0 || (shared < read.ids.length && !canRewind(this.#model))) {
      read.cache.dispose();
      return 0;
    }
    this.#cache = shared < read.ids.length ? read.cache.truncate(shared) : read.cache;
    this.#ids.push(...read.ids.slice(0, shared));
    return shared;
  }

  /**
   * Reads on.
   *
   * @returns the logits of each of the tokens, or of the last alone; until the next are read
   * @throws the signal's reason when aborted, and what `forward` throws; what was read before stays usable
   */
  async read(
    ids: readonly number[],
    keep: 'all' | 'last',
    { into, signal = this.#options.signal }: ReadOptions = {},
  ): Promise<LogitRows> {
    const { capacity } = this.#options;
    signal?.throwIfAborted();
    const target = into ?? (keep === 'all' && ids.length > 1 ? undefined : this.#logits);
    const { logits, cache } = await this.#model.forward({
      inputIds: [ids],
      keep,
      capacity,
      ...(target === undefined ? {} : { into: target }),
      ...(this.#cache === undefined ? {} : { cache: this.#cache }),
      ...(signal === undefined ? {} : { signal }),
    });
    this.#cache = cache;
    this.#logits ??= new Float32Array(logits.dims[2]);
    for (const id of ids) this.#ids.push(id);
    signal?.throwIfAborted();
    return new LogitRows(logits);
  }

  /** Forgets what was read after the first `length` tokens. */
  rewind(length: number): void {
    if (length === this.#ids.length) return;
    if (length > 0) {
      this.#cache = this.#cache?.truncate(length);
    } else {
      this.#cache?.dispose();
      this.#cache = undefined;
    }
    this.#ids.length = length;
  }

  /** How many of these tokens, from `start` on, are what was read at the same places. */
  agreement(ids: readonly number[], start: number): number {
    let end = start;
    while (end < this.#ids.length && end < ids.length && this.#ids[end] === ids[end]) end++;
    return end;
  }

  /** Hands the cache back where it is kept, or frees it. */
  release(): void {
    const cache = this.#cache;
    this.#cache = undefined;
    if (cache === undefined) return;
    if (this.#options.kept === undefined) cache.dispose();
    else this.#options.kept.put(this.#model, { ids: [...this.#ids], cache });
  }
}

/** Logits of one sequence, position by position. */
export class LogitRows {
  readonly #logits: Logits;

  constructor(logits: Logits) {
    this.#logits = logits;
  }

  get count(): number {
    return this.#logits.dims[1];
  }

  /** `[vocabulary]`; counted from the end where negative, as `Array.at` does. */
  at(index: number): Float32Array {
    const [, count, vocabulary] = this.#logits.dims;
    const start = (index < 0 ? count + index : index) * vocabulary;
    return this.#logits.data.subarray(start, start + vocabulary);
  }
}

import type { StepCache, StepModel } from '../decoder/step-model.js';

/** A model's cache and the tokens that are in it. */
export interface ReadTokens {
  readonly ids: readonly number[];
  readonly cache: StepCache;
}

/**
 * Keeps a model's cache between generations: give the same one to each turn of a conversation, and what a prompt
 * shares with the turn before is not computed again. A generation takes the cache out and puts it back when it
 * ends, however it ends; two generations at the same time do not disturb each other, but only one finds the cache.
 *
 * @example
 * ```ts
 * const cache = new PrefixCache();
 * const first = await generate(decoder, { promptIds, maxTokens: 50, cache });
 * const second = await generate(decoder, { promptIds: [...promptIds, ...first.ids, ...more], maxTokens: 50, cache });
 * cache.dispose();
 * ```
 */
export class PrefixCache {
  #model: StepModel | undefined;
  #read: ReadTokens | undefined;

  /** The tokens whose keys and values are kept. */
  get ids(): readonly number[] {
    return this.#read?.ids ?? [];
  }

  /** Takes out what is kept for this model; what another model left is freed. */
  take(model: StepModel): ReadTokens | undefined {
    const read = this.#read;
    this.#read = undefined;
    if (this.#model === model) return read;
    read?.cache.dispose();
    return undefined;
  }

  /** Keeps this instead of what was kept, which is freed. */
  put(model: StepModel, read: ReadTokens): void {
    this.dispose();
    this.#model = model;
    this.#read = read;
  }

  /** Frees what is kept. The object can be used again. */
  dispose(): void {
    this.#read?.cache.dispose();
    this.#read = undefined;
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

import type { TensorValue } from '../tensor/types.js';

/**
 * Keys and values of the tokens so far. A step never changes what a cache stands for: it gives back a new one, and the
 * old one still serves for other continuations, also where both share memory.
 */
export interface DecoderCache {
  /** Positions of the longest row, padding included. */
  readonly length: number;
  /** `[batch, length]`, 0 at padding. */
  readonly mask: readonly (readonly number[])[];
  /** A copy of each tensor, by the name of the input that takes it. */
  readonly tensors: Readonly<Record<string, TensorValue>>;
  /**
   * The first `length` positions, in the same memory where that can be. Takes the cache over: this one, and every longer
   * one that shares its memory, must not be used any more, and says so when it is.
   *
   * @throws InferenceError `CACHE_STALE`; `CACHE_INDIVISIBLE` for states that do not grow with the text
   */
  truncate(length: number): DecoderCache;
  /** Frees the memory, for every cache that shares it. May be called more than once. */
  dispose(): void;
}

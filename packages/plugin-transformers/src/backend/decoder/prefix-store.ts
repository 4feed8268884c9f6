import type { CacheState } from './cache-state.js';

/** A cache that begins with the same tokens as a prompt, and how many those are. */
export interface SharedPrefix {
  readonly state: CacheState;
  readonly length: number;
}

interface Entry extends SharedPrefix {
  /** The session whose cache it is. */
  readonly owner: object;
}

/** So few tokens are computed as fast as they are found. */
const FEWEST = 8;

/**
 * The caches that were used last, by the tokens in them, so that a prompt that begins like an earlier one need not be
 * computed from its start. Holds so many bytes of keys and values at most, the latest first.
 */
export class PrefixStore {
  readonly #limit: number;
  /** From the oldest to the latest. */
  #entries: Entry[] = [];

  constructor(limit: number) {
    this.#limit = limit;
  }

  get bytes(): number {
    return this.#entries.reduce((sum, { state }) => sum + state.bytes, 0);
  }

  /** Keeps a cache, in place of those that it goes on from. */
  put(owner: object, state: CacheState): void {
    const { tokens } = state;
    if (tokens === undefined) return;
    this.#remove((entry) => {
      if (entry.owner !== owner) return false;
      const known = entry.state.tokens;
      return known === undefined || known.isPrefixOf(tokens);
    });
    if (state.bytes > this.#limit) return;
    state.memory.retain();
    this.#entries.push({ owner, state, length: tokens.length });
    let over = this.bytes - this.#limit;
    this.#remove(({ state: { bytes } }) => {
      if (over <= 0) return false;
      over -= bytes;
      return true;
    });
  }

  /**
   * The cache that shares the most tokens with a prompt.
   *
   * @param most at most so many tokens are wanted
   */
  find(
    owner: object,
    ids: readonly number[],
    positions: readonly number[] | undefined,
    most: number,
  ): SharedPrefix | undefined {
    let best: SharedPrefix | undefined;
    for (const { owner: whose, state } of this.#entries) {
      if (whose !== owner) continue;
      const length = Math.min(most, state.tokens?.shared(ids, positions) ?? 0);
      if (length >= FEWEST && length > (best?.length ?? 0)) best = { state, length };
    }
    return best;
  }

  /** Whether there is anything of this session. */
  has(owner: object): boolean {
    return this.#entries.some((entry) => entry.owner === owner);
  }

  /** Lets go of a session's caches. */
  drop(owner: object): void {
    this.#remove((entry) => entry.owner === owner);
  }

  /** Lets go of everything. */
  clear(): void {
    this.#remove(() => true);
  }

  #remove(which: (entry: Entry) => boolean): void {
    const removed: Entry[] = [];
    this.#entries = this.#entries.filter((entry) => {
      const goes = which(entry);
      if (goes) removed.push(entry);
      return !goes;
    });
    for (const { state } of removed) state.memory.release();
  }
}

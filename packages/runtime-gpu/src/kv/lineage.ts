import { InferenceError } from '../errors.js';

/** What a handle must say to be checked. */
export interface Stamped {
  /** When it was made, in the lineage's own count. */
  readonly stamp: number;
  readonly length: number;
}

/**
 * Which handles over one growing memory still stand for what is in it. Positions are only ever appended behind the
 * newest handle, so that the older, shorter ones stay true; cutting the memory back ends those that were longer.
 */
export class Lineage {
  #clock = 0;
  #newest = 0;
  /** Cuts from old to new, lengths ascending: an earlier cut at or above a later one says nothing more. */
  readonly #cuts: Stamped[] = [];
  #ended = false;

  /** A stamp for the handle that becomes the newest. */
  append(): number {
    this.#newest = ++this.#clock;
    return this.#newest;
  }

  /** Ends all handles of more than `length` positions; a stamp for the one that becomes the newest. */
  cut(length: number): number {
    while ((this.#cuts.at(-1)?.length ?? -1) >= length) this.#cuts.pop();
    this.#cuts.push({ stamp: ++this.#clock, length });
    return this.append();
  }

  end(): void {
    this.#ended = true;
  }

  get ended(): boolean {
    return this.#ended;
  }

  isNewest(handle: Stamped): boolean {
    return handle.stamp === this.#newest;
  }

  /** @throws InferenceError `CACHE_STALE` */
  assertValid(handle: Stamped): void {
    if (this.#ended) throw stale('a cache in use', 'one that was disposed');
    for (let i = this.#cuts.length - 1; i >= 0 && this.#cuts[i]!.stamp > handle.stamp; i--) {
      const cut = this.#cuts[i]!.length;
      if (cut < handle.length) {
        throw stale(
          `a cache of ${cut} positions or fewer, to which its memory was cut`,
          `${handle.length} positions`,
        );
      }
    }
  }
}

export function stale(expected: string, found: string): InferenceError {
  return new InferenceError('CACHE_STALE', 'The cache cannot be used any more.', {
    expected,
    found,
    hint: 'Go on from what `truncate` gave back, or feed the prompt again.',
  });
}

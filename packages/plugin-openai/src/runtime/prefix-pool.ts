import { PrefixCache } from '@cqil/runtime-gpu';

/** Tokens that must be shared, lest a conversation lose its cache to a prompt that begins like all prompts do. */
const WORTH_IT = 16;

/**
 * Caches that requests left, for later ones that begin with the same tokens: a conversation's next turn, or the same
 * system prompt. Those used last are kept.
 */
export class PrefixPool {
  readonly #limit: number;
  /** Oldest first. */
  #kept: PrefixCache[] = [];
  #disposed = false;

  /** @param limit caches that are kept while nobody uses them */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /**
   * The cache that shares most with a prompt, for one request alone; an empty one where none shares a good part of itself.
   *
   * @returns `shared`: tokens of the prompt that need not be read
   */
  take(promptIds: readonly number[]): { cache: PrefixCache; shared: number } {
    let best: PrefixCache | undefined;
    let most = 0;
    for (const one of this.#kept) {
      const shared = sharedLength(one.ids, promptIds);
      if (shared >= WORTH_IT && 2 * shared >= one.ids.length && shared >= most) {
        best = one;
        most = shared;
      }
    }
    if (best === undefined) return { cache: new PrefixCache(), shared: 0 };
    this.#kept = this.#kept.filter((one) => one !== best);
    return { cache: best, shared: most };
  }

  /** Keeps a cache for later, and frees the oldest where there are too many. */
  put(cache: PrefixCache): void {
    if (cache.ids.length === 0) return;
    this.#kept.push(cache);
    const limit = this.#disposed ? 0 : this.#limit;
    while (this.#kept.length > limit) this.#kept.shift()?.dispose();
  }

  /** Tokens in the caches that are kept. */
  get tokens(): number {
    return this.#kept.reduce((sum, { ids }) => sum + ids.length, 0);
  }

  dispose(): void {
    this.#disposed = true;
    for (const one of this.#kept.splice(0)) one.dispose();
  }
}

/** Tokens that both begin with; the prompt's last is always left to read, since what follows it is wanted. */
function sharedLength(kept: readonly number[], prompt: readonly number[]): number {
  const limit = Math.min(kept.length, prompt.length - 1);
  let shared = 0;
  while (shared < limit && kept[shared] === prompt[shared]) shared++;
  return shared;
}

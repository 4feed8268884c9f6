import type { Draft, DraftKind, DraftRequest, DraftSource } from './types.js';

/** What to expect at first, by the length of the match: one token alone says little. */
const CHANCES = [0.2, 0.4, 0.6];
const LONG_MATCH_CHANCE = 0.8;

/**
 * Drafts what followed the last tokens where they stood before, in the prompt or the answer (prompt lookup
 * decoding; Saxena 2023, and the reference copying of Yang et al., arXiv 2304.04487). Costs next to nothing, and is
 * right where an answer repeats its prompt: editing, summarising, code.
 *
 * The longest match counts, up to `longest` tokens, and of equally long ones the latest. A draft that reaches the
 * end of the text goes on with its own beginning, so that a period goes on.
 */
export class PromptLookup implements DraftSource {
  readonly #longest: number;
  /** Where the tokens after the match begin. */
  #from = 0;

  constructor(longest: number) {
    this.#longest = longest;
  }

  look(context: readonly number[]): DraftKind | undefined {
    const end = context.length;
    const last = context[end - 1];
    let best = 0;
    for (let at = end - 2; at >= 0 && best < this.#longest; at--) {
      if (context[at] !== last) continue;
      let length = 1;
      while (length < this.#longest && length <= at && context[at - length] === context[end - 1 - length]) {
        length++;
      }
      if (length > best) {
        best = length;
        this.#from = at + 1;
      }
    }
    return best === 0 ? undefined : { id: best, chance: CHANCES[best - 1] ?? LONG_MATCH_CHANCE };
  }

  async draft({ context, limit }: DraftRequest): Promise<Draft> {
    const ids: number[] = [];
    for (let i = 0; i < limit; i++) {
      const at = this.#from + i;
      ids.push(at < context.length ? context[at]! : ids[at - context.length]!);
    }
    return { ids };
  }

  release(): void {}
}

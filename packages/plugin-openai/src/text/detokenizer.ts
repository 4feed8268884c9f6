/** How many tokens of the prompt are kept: enough for a decoder to see that it is not at a text's beginning. */
const CONTEXT = 6;
/** What decoders write for bytes that are no character, or not yet one. */
const REPLACEMENT = '\uFFFD';

/**
 * Turns tokens into text as they come, whole characters only.
 *
 * A token may hold part of a character, and what it looks like may depend on the token before (spaces in
 * SentencePiece), so each step decodes a short run of tokens with and without the new ones, and hands out what
 * the new ones add, unless that ends within a character.
 */
export class Detokenizer {
  readonly #decode: (ids: number[]) => string;
  readonly #ids: number[];
  /** Where the run starts, and up to where its text has been handed out. */
  #start = 0;
  #done: number;

  constructor(decode: (ids: number[]) => string, promptIds: readonly number[]) {
    this.#decode = decode;
    this.#ids = promptIds.slice(-CONTEXT);
    this.#done = this.#ids.length;
  }

  /** @returns the text that the token completes; empty where it ends within a character */
  push(id: number): string {
    this.#ids.push(id);
    const { before, after } = this.#texts();
    if (after.length <= before.length || after.endsWith(REPLACEMENT)) return '';
    this.#start = this.#done;
    this.#done = this.#ids.length;
    return after.slice(before.length);
  }

  /** What the last tokens leave when no more come: broken characters as U+FFFD. */
  flush(): string {
    const { before, after } = this.#texts();
    this.#start = this.#done;
    this.#done = this.#ids.length;
    return after.slice(before.length);
  }

  #texts() {
    return {
      before: this.#decode(this.#ids.slice(this.#start, this.#done)),
      after: this.#decode(this.#ids.slice(this.#start)),
    };
  }
}

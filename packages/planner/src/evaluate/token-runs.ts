/** Length of the runs that are remembered, and from one remembered run to the next. */
const LENGTH = 32;
const STEP = 16;

/**
 * Remembers token sequences and finds others that have a long run in common with one: the last guard that what a
 * model is judged on was not seen before, whatever the texts repeat (licence headers, tables, quotations).
 *
 * Every 16th run of 32 tokens is remembered, so memory is small, and every common run of `TokenRuns.detects`
 * tokens or more is found, some shorter ones too.
 */
export class TokenRuns {
  /** Common runs of this many tokens are found always. */
  readonly detects: number;
  readonly #length: number;
  readonly #step: number;
  readonly #runs = new Set<string>();

  /** @param window length of the sequences: in short ones shorter runs count */
  constructor(window: number) {
    this.#length = Math.max(1, Math.min(LENGTH, Math.floor(window / 2)));
    this.#step = Math.min(STEP, this.#length);
    this.detects = this.#length + this.#step - 1;
  }

  add(ids: readonly number[]): void {
    for (let start = 0; start + this.#length <= ids.length; start += this.#step) {
      this.#runs.add(this.#key(ids, start));
    }
  }

  sharedWith(ids: readonly number[]): boolean {
    if (this.#runs.size === 0) return false;
    for (let start = 0; start + this.#length <= ids.length; start++) {
      if (this.#runs.has(this.#key(ids, start))) return true;
    }
    return false;
  }

  #key(ids: readonly number[], start: number): string {
    return ids.slice(start, start + this.#length).join();
  }
}

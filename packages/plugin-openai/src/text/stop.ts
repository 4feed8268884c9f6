/**
 * Watches a text that comes in pieces for stop strings. What could be the beginning of one is held back until
 * it is known not to be.
 */
export class StopMatcher {
  readonly #stops: readonly string[];
  #held = '';

  constructor(stops: readonly string[]) {
    this.#stops = stops;
  }

  /**
   * Takes the next piece.
   *
   * @returns the text that is safe to hand out, and whether a stop string has come; after one, nothing more
   *   is handed out
   */
  push(piece: string): { readonly text: string; readonly stopped: boolean } {
    const all = this.#held + piece;
    const at = Math.min(...this.#stops.map((stop) => found(all.indexOf(stop))));
    if (at !== Number.POSITIVE_INFINITY) {
      this.#held = '';
      return { text: all.slice(0, at), stopped: true };
    }
    const held = Math.max(0, ...this.#stops.map((stop) => beginningAtEnd(all, stop)));
    this.#held = all.slice(all.length - held);
    return { text: all.slice(0, all.length - held), stopped: false };
  }

  /** What is still held back, once the text is over. */
  flush(): string {
    const held = this.#held;
    this.#held = '';
    return held;
  }
}

function found(index: number): number {
  return index === -1 ? Number.POSITIVE_INFINITY : index;
}

/** The length of the longest beginning of `stop` at the end of `text`. */
function beginningAtEnd(text: string, stop: string): number {
  for (let length = Math.min(text.length, stop.length - 1); length > 0; length--) {
    if (text.endsWith(stop.slice(0, length))) return length;
  }
  return 0;
}

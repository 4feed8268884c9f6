import type { Timings } from '../api/writer.js';
import type { TextPiece } from '../model.js';

/**
 * Takes the time of a request's generations, one after the other. What a reader does between two pieces does not count:
 * a slow one makes no slow model.
 *
 * As llama.cpp's server has it, the first token belongs to the prompt by its time, as reading the prompt brings it, and to
 * the answer by its number.
 */
export class Stopwatch {
  #read = 0;
  #cached = 0;
  #readMs = 0;
  #made = 0;
  #madeMs = 0;
  #drafts: { drafted: number; accepted: number } | undefined;

  /** Hands pieces on as they come. @param promptTokens of the prompt that they answer */
  async *time(pieces: AsyncIterable<TextPiece>, promptTokens: number): AsyncGenerator<TextPiece, void> {
    const iterator = pieces[Symbol.asyncIterator]();
    const before = this.#drafts;
    let answering = false;
    this.#read += promptTokens;
    try {
      for (;;) {
        const began = performance.now();
        const { done, value } = await iterator.next();
        const took = performance.now() - began;
        if (answering) this.#madeMs += took;
        else this.#readMs += took;
        if (done === true) return;
        answering ||= value.tokens > 0;
        this.#made += value.tokens;
        this.#cached += value.cachedTokens ?? 0;
        this.#read -= value.cachedTokens ?? 0;
        if (value.drafts !== undefined) {
          const { drafted, accepted } = value.drafts;
          this.#drafts = {
            drafted: (before?.drafted ?? 0) + drafted,
            accepted: (before?.accepted ?? 0) + accepted,
          };
        }
        yield value;
      }
    } finally {
      await iterator.return?.();
    }
  }

  get timings(): Timings {
    return {
      cache_n: this.#cached,
      prompt_n: this.#read,
      prompt_ms: round(this.#readMs),
      prompt_per_token_ms: ratio(this.#readMs, this.#read),
      prompt_per_second: ratio(1000 * this.#read, this.#readMs),
      predicted_n: this.#made,
      predicted_ms: round(this.#madeMs),
      predicted_per_token_ms: ratio(this.#madeMs, this.#made),
      predicted_per_second: ratio(1000 * this.#made, this.#madeMs),
      ...(this.#drafts === undefined
        ? {}
        : { draft_n: this.#drafts.drafted, draft_n_accepted: this.#drafts.accepted }),
    };
  }
}

/** 0 where there is nothing to divide by: JSON has no infinity. */
function ratio(a: number, b: number): number {
  return b > 0 ? round(a / b) : 0;
}

/** To a microsecond. */
function round(value: number): number {
  return Math.round(value * 1000) / 1000;
}

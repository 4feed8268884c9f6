import { decay, REACH } from './decay.js';

/** A token and the natural logarithm of its probability. */
export interface TokenLogprob {
  readonly id: number;
  readonly logprob: number;
}

/**
 * Log-probabilities of one position in the model's own distribution: the softmax of its logits as they are, before
 * temperature, penalties, bias and constraint, as OpenAI's API gives them.
 */
export class Logprobs {
  readonly #logits: Float32Array;
  /** log Σ exp of the logits. */
  readonly #normaliser: number;

  /** @param logits `[vocabulary]` */
  constructor(logits: Float32Array) {
    this.#logits = logits;
    let top = Number.NEGATIVE_INFINITY;
    for (let i = 0; i < logits.length; i++) if (logits[i]! > top) top = logits[i]!;
    let sum = 0;
    for (let i = 0; i < logits.length; i++) {
      const logit = logits[i]!;
      const distance = logit === top ? 0 : top - logit;
      // A logit that is no number is left out.
      if (distance < REACH) sum += decay(distance);
    }
    this.#normaliser = top + Math.log(sum);
  }

  of(id: number): number {
    return this.#logits[id]! - this.#normaliser;
  }

  /** The `count` most likely tokens, the most likely first, of equals the lower id. */
  top(count: number): TokenLogprob[] {
    const best: number[] = [];
    const logits = this.#logits;
    let floor = Number.NEGATIVE_INFINITY;
    for (let id = 0; id < logits.length && count > 0; id++) {
      const logit = logits[id]!;
      if (!(logit > floor)) continue;
      // Ids come in order, so an equal one goes behind.
      let place = best.length;
      while (place > 0 && logits[best[place - 1]!]! < logit) place--;
      best.splice(place, 0, id);
      if (best.length > count) best.pop();
      if (best.length === count) floor = logits[best[count - 1]!]!;
    }
    return best.map((id) => ({ id, logprob: this.of(id) }));
  }
}

import { PassTimes } from './pass-times.js';
import type { DraftKind, Pace, PassRecord } from './types.js';

/** After so many passes plain steps are timed again: they become slower as the text becomes longer. */
const STALE = 64;
/** Past acceptances count so much less with each pass. */
const MEMORY = 0.95;
/** A kind's chance at first weighs so many tokens. */
const FIRST_WEIGHT = 2;
/** Chances to draft that are let go before drafting is tried again; doubled each time that it does not pay. */
const FIRST_PAUSE = 16;
const LONGEST_PAUSE = 256;

interface Acceptance {
  accepted: number;
  tested: number;
  pause: number;
  waited: number;
  /** The last trial's time was not to be used: the next pass is one, too. */
  again: boolean;
}

/**
 * Decides how many tokens to draft, from running estimates of what passes take and how often drafts are accepted.
 *
 * With acceptance a, a pass over k drafted tokens brings (1 - a^(k+1)) / (1 - a) tokens on average (Leviathan et
 * al., arXiv 2211.17192, equation 1). The k of the most tokens in a unit of time is taken, 0 where none beats a
 * plain step.
 */
export class Pacer implements Pace {
  readonly #longest: number;
  readonly #times: PassTimes;
  readonly #kinds = new Map<number, Acceptance>();
  #sincePlain = 0;

  /**
   * @param longest the most tokens of a draft
   * @param times what is known already
   */
  constructor(longest: number, times = new PassTimes()) {
    this.#longest = longest;
    this.#times = times;
  }

  length(kind: DraftKind): number {
    if (this.#times.plain === undefined || this.#sincePlain >= STALE) return 0;
    const state = this.#kind(kind);
    const { length, gain } = this.#best(state);
    if (state.again) {
      state.again = false;
      return length;
    }
    if (gain > 1) {
      state.pause = FIRST_PAUSE;
      state.waited = 0;
      return length;
    }
    state.waited++;
    if (state.waited <= state.pause) return 0;
    state.waited = 0;
    state.pause = Math.min(2 * state.pause, LONGEST_PAUSE);
    // What is long ago must not outvote the trial.
    state.accepted /= 2;
    state.tested /= 2;
    return length;
  }

  record({ kind, drafted, accepted, time }: PassRecord): void {
    this.#sincePlain = drafted === 0 ? 0 : this.#sincePlain + 1;
    if (time !== undefined) this.#times.record(drafted, time);
    if (kind === undefined || drafted === 0) return;
    const state = this.#kind(kind);
    state.again = time === undefined;
    state.accepted = MEMORY * state.accepted + accepted;
    state.tested = MEMORY * state.tested + accepted + (accepted < drafted ? 1 : 0);
  }

  #kind({ id, chance }: DraftKind): Acceptance {
    let state = this.#kinds.get(id);
    if (state === undefined) {
      state = {
        accepted: chance * FIRST_WEIGHT,
        tested: FIRST_WEIGHT,
        pause: FIRST_PAUSE,
        waited: 0,
        again: false,
      };
      this.#kinds.set(id, state);
    }
    return state;
  }

  /** The best length of 1 or more, and how many times as fast it is as plain steps. */
  #best({ accepted, tested }: Acceptance): { length: number; gain: number } {
    const acceptance = accepted / tested;
    let best = { length: 1, gain: 0 };
    let tokens = 1;
    let chance = 1;
    for (let length = 1; length <= this.#longest; length++) {
      chance *= acceptance;
      tokens += chance;
      const gain = (tokens * this.#times.plain!) / this.#times.of(length);
      if (gain > best.gain) best = { length, gain };
    }
    return best;
  }
}

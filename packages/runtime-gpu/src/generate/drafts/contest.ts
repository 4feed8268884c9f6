import type { Pace, PassRecord } from './types.js';

/** Passes that are measured of the one way when the other is the better so far. */
const TRIAL = 12;
/** Passes behind a change of ways that still feel the other. */
const SETTLING = 2;
/** Passes of the better way before the other is tried again; doubled each time that it is still the better. */
const FIRST_TERM = 96;
const LONGEST_TERM = 1536;
/** Past passes count so much less with each new one. */
const MEMORY = 0.98;

type Way = 'drafts' | 'plain';

interface Account {
  tokens: number;
  time: number;
}

/**
 * Decides between drafting all the time and not at all, for drafts that are made while the model computes.
 *
 * Such drafts cost no time of their own. But the drafter shares memory, and perhaps processors, with the model, and slows
 * it down in a way that no single pass shows: a plain step beside a busy drafter is not a plain step without one. So both
 * ways are taken in turn, for stretches of passes, and the one of more tokens in a unit of time wins.
 */
export class Contest implements Pace {
  readonly #longest: number;
  readonly #accounts: Record<Way, Account> = {
    drafts: { tokens: 0, time: 0 },
    plain: { tokens: 0, time: 0 },
  };
  #way: Way = 'drafts';
  /** The way that won last; none while only one is known. */
  #winner: Way | undefined;
  #term = FIRST_TERM;
  #settling = SETTLING;
  #left = TRIAL;

  /** @param longest the most tokens of a draft; as many as the caller allows when absent */
  constructor(longest = Number.POSITIVE_INFINITY) {
    this.#longest = longest;
  }

  get resting(): boolean {
    return this.#way === 'plain';
  }

  length(): number {
    return this.resting ? 0 : this.#longest;
  }

  record({ kind, accepted, time }: PassRecord): void {
    // While drafts are wanted, a pass at the very end, which has no room for any, says nothing.
    const way = kind === undefined ? 'plain' : 'drafts';
    if (time === undefined || way !== this.#way) return;
    if (this.#settling > 0) {
      this.#settling--;
      return;
    }
    const account = this.#accounts[this.#way];
    account.tokens = MEMORY * account.tokens + accepted + 1;
    account.time = MEMORY * account.time + time;
    this.#left--;
    if (this.#left === 0) this.#decide();
  }

  #decide(): void {
    const other: Way = this.#way === 'drafts' ? 'plain' : 'drafts';
    if (this.#way === this.#winner || this.#accounts[other].time === 0) {
      this.#take(other, TRIAL);
      return;
    }
    const winner = rate(this.#accounts[this.#way]) > rate(this.#accounts[other]) ? this.#way : other;
    this.#term = winner === this.#winner ? Math.min(2 * this.#term, LONGEST_TERM) : FIRST_TERM;
    this.#winner = winner;
    this.#take(winner, this.#term);
  }

  #take(way: Way, passes: number): void {
    if (way !== this.#way) {
      this.#settling = SETTLING;
      const account = this.#accounts[way];
      // What is long ago must not outvote the trial.
      if (passes === TRIAL) this.#accounts[way] = { tokens: account.tokens / 4, time: account.time / 4 };
    }
    this.#way = way;
    this.#left = passes;
  }
}

function rate({ tokens, time }: Account): number {
  return tokens / time;
}

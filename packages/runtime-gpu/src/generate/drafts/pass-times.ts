/** A time counts at most so many times what was expected: another process may have been in the way. */
const OUTLIER = 3;
/** Past times count so much less with each new one. */
const MEMORY = 0.9;
/** What a drafted token costs, in plain steps, as long as nothing was measured; weighs as one pass. */
const GUESS = 0.2;
const GUESSED_AT = 4;
/** A plain step is where the line begins; it weighs so many passes. */
const ANCHOR = 0.2;

/**
 * What passes of a model take: a running mean of plain steps, and a running line, by least squares, over the number
 * of drafted tokens. Plain steps are apart, since one row and several run in different kernels.
 */
export class PassTimes {
  #plain: number | undefined;
  // Decaying sums over passes of 1, k, k², t and k t.
  #weight = 0;
  #k = 0;
  #kk = 0;
  #t = 0;
  #kt = 0;

  /** A plain step; `undefined` before the first. */
  get plain(): number | undefined {
    return this.#plain;
  }

  record(drafted: number, time: number): void {
    const plain = this.#plain;
    if (drafted > 0) {
      if (plain === undefined) return;
      if (this.#weight === 0) this.#add(GUESSED_AT, plain * (1 + GUESS * GUESSED_AT));
      this.#add(drafted, Math.min(time, OUTLIER * this.of(drafted)));
    } else if (plain === undefined) {
      this.#plain = time;
    } else {
      this.#plain = plain + (1 - MEMORY) * 2 * (Math.min(time, OUTLIER * plain) - plain);
    }
  }

  /** A pass over this many drafted tokens; plain steps must have been recorded. */
  of(drafted: number): number {
    const plain = this.#plain!;
    if (this.#weight === 0) return plain * (1 + GUESS * drafted);
    const weight = this.#weight + ANCHOR;
    const k = this.#k / weight;
    const t = (this.#t + ANCHOR * plain) / weight;
    const slope = (this.#kt / weight - k * t) / (this.#kk / weight - k * k);
    return t + Math.max(0, slope) * (drafted - k);
  }

  #add(k: number, t: number): void {
    this.#weight = MEMORY * this.#weight + 1;
    this.#k = MEMORY * this.#k + k;
    this.#kk = MEMORY * this.#kk + k * k;
    this.#t = MEMORY * this.#t + t;
    this.#kt = MEMORY * this.#kt + k * t;
  }
}

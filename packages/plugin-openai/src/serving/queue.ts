/** The queue is full: `retryAfter` seconds from now there may be room. */
export class QueueFullError extends Error {
  override readonly name = 'QueueFullError';
  readonly retryAfter: number;

  constructor(retryAfter: number) {
    super('The queue is full.');
    this.retryAfter = retryAfter;
  }
}

interface Waiting {
  readonly start: () => void;
}

/**
 * Gives callers their turns in the order in which they came, so many at a time as there are places, and lets no more than
 * `limit` wait.
 */
export class TurnQueue {
  readonly #limit: number;
  readonly #waiting: Waiting[] = [];
  #places = 1;
  #running = 0;
  /** Mean length of a turn in milliseconds, later turns counting more. */
  #mean = 1000;

  constructor(limit: number) {
    this.#limit = limit;
  }

  get waiting(): number {
    return this.#waiting.length;
  }

  /** Callers that have a turn. */
  get running(): number {
    return this.#running;
  }

  /** Turns that there may be at the same time; 1 at first. */
  get places(): number {
    return this.#places;
  }

  set places(places: number) {
    this.#places = places;
    this.#admit();
  }

  /**
   * Waits for a turn.
   *
   * @returns ends the turn
   * @throws QueueFullError at once; the signal's reason when the caller goes away before its turn
   */
  async turn(signal: AbortSignal): Promise<() => void> {
    return this.join(signal);
  }

  /**
   * Takes the last place in the queue, at once.
   *
   * @returns the turn, when it comes: a function that ends it; calling it again does nothing. Rejected with the
   *   signal's reason when the caller goes away before.
   * @throws QueueFullError before anything else happens
   */
  join(signal: AbortSignal): Promise<() => void> {
    signal.throwIfAborted();
    if (this.#running < this.#places) {
      this.#running += 1;
      return Promise.resolve(this.#begin());
    }
    if (this.#waiting.length >= this.#limit) throw new QueueFullError(this.#estimate());
    return this.#wait(signal).then(() => this.#begin());
  }

  #begin(): () => void {
    const began = performance.now();
    let ended = false;
    return () => {
      if (ended) return;
      ended = true;
      this.#mean += 0.3 * (performance.now() - began - this.#mean);
      this.#running -= 1;
      this.#admit();
    };
  }

  /** The next ones' turns begin here, so that nobody who comes meanwhile gets in between. */
  #admit(): void {
    while (this.#running < this.#places) {
      const next = this.#waiting.shift();
      if (next === undefined) return;
      this.#running += 1;
      next.start();
    }
  }

  #wait(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const leave = () => {
        this.#waiting.splice(this.#waiting.indexOf(entry), 1);
        reject(signal.reason);
      };
      const entry: Waiting = {
        start: () => {
          signal.removeEventListener('abort', leave);
          resolve();
        },
      };
      signal.addEventListener('abort', leave, { once: true });
      this.#waiting.push(entry);
    });
  }

  #estimate(): number {
    return Math.max(1, Math.ceil((this.#mean * (this.#waiting.length + 1)) / this.#places / 1000));
  }
}

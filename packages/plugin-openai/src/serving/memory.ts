/** What shares the memory: a model that is there, or about to be. */
export interface Resident {
  /** What it takes now, in bytes. */
  readonly bytes: number;
  /** Whether it could be put out at once: nobody uses it. */
  readonly idle: boolean;
  /** Whether it can be put out at all. */
  readonly removable: boolean;
  /** When it was last used; larger is later, no two alike. */
  readonly lastUsed: number;
  /** Puts it out. Called only while it is idle; what it takes counts until `free`. */
  unload(): void;
  /** From now on newcomers wait, as somebody else needs the room; or need wait no longer. */
  hold(held: boolean): void;
}

/** A model needs more than there is, even with no other beside it. */
export class TooLargeError extends Error {
  override readonly name = 'TooLargeError';
  readonly bytes: number;
  readonly limit: number;

  constructor(bytes: number, limit: number) {
    super(`A model needs ${bytes} bytes of ${limit}.`);
    this.bytes = bytes;
    this.limit = limit;
  }
}

interface Waiting {
  readonly resident: Resident;
  readonly bytes: number;
  readonly enter: () => void;
}

/**
 * Memory that models share. Who wants room gets it in the order in which they asked; for that, idle models are put out,
 * those that were used longest ago first. Where the idle ones are not enough, those in use are asked to take no newcomers
 * until the one who waits has had his turn, so that a busy model does not keep the others out for ever.
 */
export class MemoryBudget {
  readonly #limit: number;
  readonly #residents = new Set<Resident>();
  /** Those of the residents that are being put out. */
  readonly #leaving = new Set<Resident>();
  readonly #held = new Set<Resident>();
  readonly #waiting: Waiting[] = [];
  /** What those who have room but are not there yet will take. */
  readonly #reserved = new Map<Resident, number>();

  /** @param limit in bytes; infinite for none */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /**
   * Waits for room.
   *
   * @param bytes what it will take; after `settle`, its own `bytes` count
   * @throws TooLargeError at once; the signal's reason when it is aborted before
   */
  async enter(resident: Resident, bytes: number, signal: AbortSignal): Promise<void> {
    if (bytes > this.#limit) throw new TooLargeError(bytes, this.#limit);
    signal.throwIfAborted();
    await new Promise<void>((resolve, reject) => {
      const leave = () => {
        this.#waiting.splice(this.#waiting.indexOf(one), 1);
        reject(signal.reason);
        this.#arrange();
      };
      const one: Waiting = {
        resident,
        bytes,
        enter: () => {
          signal.removeEventListener('abort', leave);
          resolve();
        },
      };
      signal.addEventListener('abort', leave, { once: true });
      this.#waiting.push(one);
      this.#arrange();
    });
  }

  /** It is there. */
  settle(resident: Resident): void {
    this.#reserved.delete(resident);
    this.#residents.add(resident);
    this.#arrange();
  }

  /** It is gone, or did not come. */
  free(resident: Resident): void {
    this.#reserved.delete(resident);
    this.#residents.delete(resident);
    this.#leaving.delete(resident);
    this.#arrange();
  }

  /** Somebody uses it no longer. */
  released(): void {
    this.#arrange();
    this.#trim();
  }

  get #taken(): number {
    let sum = 0;
    for (const bytes of this.#reserved.values()) sum += bytes;
    for (const { bytes } of this.#residents) sum += bytes;
    return sum;
  }

  #arrange(): void {
    for (;;) {
      const first = this.#waiting[0];
      if (first === undefined) break;
      if (this.#taken + first.bytes > this.#limit) {
        this.#makeRoom(first);
        return;
      }
      this.#waiting.shift();
      this.#reserved.set(first.resident, first.bytes);
      first.enter();
    }
    this.#hold(new Set());
  }

  #makeRoom({ bytes }: Waiting): void {
    let missing = this.#taken + bytes - this.#limit;
    for (const one of this.#leaving) missing -= one.bytes;
    const held = new Set<Resident>();
    const others = this.#oldest();
    for (const one of [...others.filter(({ idle }) => idle), ...others.filter(({ idle }) => !idle)]) {
      if (missing <= 0) break;
      missing -= one.bytes;
      if (one.idle) this.#putOut(one);
      else held.add(one);
    }
    this.#hold(held);
  }

  /** Caches grow: what is over the limit then goes, but never what was used last. */
  #trim(): void {
    let over = this.#taken - this.#limit;
    for (const one of this.#leaving) over -= one.bytes;
    for (const one of this.#oldest().slice(0, -1)) {
      if (over <= 0) return;
      if (!one.idle) continue;
      over -= one.bytes;
      this.#putOut(one);
    }
  }

  #oldest(): Resident[] {
    return [...this.#residents]
      .filter((one) => one.removable && !this.#leaving.has(one))
      .sort((a, b) => a.lastUsed - b.lastUsed);
  }

  #putOut(one: Resident): void {
    this.#leaving.add(one);
    one.unload();
  }

  #hold(held: ReadonlySet<Resident>): void {
    for (const one of this.#held) {
      if (held.has(one)) continue;
      this.#held.delete(one);
      one.hold(false);
    }
    for (const one of held) {
      if (this.#held.has(one)) continue;
      this.#held.add(one);
      one.hold(true);
    }
  }
}

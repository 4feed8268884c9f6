/**
 * Memory that several may need: handles that the program holds, runs under way, the store of prefixes. Who lets go in so
 * many words counts; a handle that is dropped without `dispose` does not, and then the garbage collector frees it all.
 */
export class SharedMemory {
  /** Whether the program has the elements themselves in hand: then only the garbage collector may free them. */
  exposed = false;
  #users = 0;
  readonly #free: () => void;

  constructor(free: () => void) {
    this.#free = free;
  }

  retain(): void {
    this.#users++;
  }

  release(): void {
    this.#users--;
    if (this.#users === 0 && !this.exposed) this.#free();
  }
}

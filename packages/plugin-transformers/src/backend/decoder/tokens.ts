/** The tokens in a cache, with the position that each was given where the graph takes positions. */
export class Tokens {
  readonly length: number;
  /** Shared by all that go on from one another: those behind `length` are somebody else's. */
  readonly #ids: number[];
  readonly #positions: number[] | undefined;

  private constructor(ids: number[], positions: number[] | undefined) {
    this.#ids = ids;
    this.#positions = positions;
    this.length = ids.length;
  }

  static of(ids: readonly number[], positions: readonly number[] | undefined): Tokens {
    return new Tokens([...ids], positions === undefined ? undefined : [...positions]);
  }

  append(ids: readonly number[], positions: readonly number[] | undefined): Tokens {
    const newest = this.#ids.length === this.length;
    const ownIds = newest ? this.#ids : this.#ids.slice(0, this.length);
    const ownPositions = newest ? this.#positions : this.#positions?.slice(0, this.length);
    // One by one: an argument list has a limit, and prompts are long.
    for (const id of ids) ownIds.push(id);
    if (ownPositions !== undefined) for (const position of positions ?? []) ownPositions.push(position);
    return new Tokens(ownIds, ownPositions);
  }

  /** The first of them. */
  first(length: number): Tokens {
    return new Tokens(this.#ids.slice(0, length), this.#positions?.slice(0, length));
  }

  /** How many of the first tokens are the same, at the same positions. */
  shared(ids: ArrayLike<number>, positions: ArrayLike<number> | undefined): number {
    if ((positions === undefined) !== (this.#positions === undefined)) return 0;
    const most = Math.min(this.length, ids.length);
    let i = 0;
    while (i < most && this.#ids[i] === ids[i] && this.#positions?.[i] === positions?.[i]) i++;
    return i;
  }

  /** Whether these are the first of those. */
  isPrefixOf(other: Tokens): boolean {
    return (
      this.length <= other.length && other.shared(this.#firstIds(), this.#firstPositions()) === this.length
    );
  }

  #firstIds(): number[] {
    return this.#ids.length === this.length ? this.#ids : this.#ids.slice(0, this.length);
  }

  #firstPositions(): number[] | undefined {
    return this.#ids.length === this.length ? this.#positions : this.#positions?.slice(0, this.length);
  }
}

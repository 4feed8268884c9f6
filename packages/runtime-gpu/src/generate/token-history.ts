/** Which tokens the prompt and the answer have, for the penalties. Drafts are added and taken back. */
export class TokenHistory {
  readonly #all = new Map<number, number>();
  readonly #generated = new Map<number, number>();

  constructor(promptIds: readonly number[]) {
    for (const id of promptIds) add(this.#all, id);
  }

  /** The tokens of prompt and answer, each once. */
  get seen(): Iterable<number> {
    return this.#all.keys();
  }

  /** The tokens of the answer and how often it has each. */
  get generated(): Iterable<readonly [id: number, count: number]> {
    return this.#generated;
  }

  push(id: number): void {
    add(this.#all, id);
    add(this.#generated, id);
  }

  /** Takes back a token that was pushed. */
  remove(id: number): void {
    subtract(this.#all, id);
    subtract(this.#generated, id);
  }
}

function add(counts: Map<number, number>, id: number): void {
  counts.set(id, (counts.get(id) ?? 0) + 1);
}

function subtract(counts: Map<number, number>, id: number): void {
  const left = (counts.get(id) ?? 0) - 1;
  if (left > 0) counts.set(id, left);
  else counts.delete(id);
}

import type { StepCache } from '../decoder/step-model.js';
import { InferenceError } from '../errors.js';
import { assertLength } from '../kv/in-place-cache.js';
import { Lineage, type Stamped, stale } from '../kv/lineage.js';

/** One row of the shared memory, and the sequence in it. */
export class Slot {
  readonly row: number;
  lineage = new Lineage();
  /** Tokens of the newest handle. */
  length = 0;
  /** Whether a sequence lives here. */
  taken = false;
  /** Whether a request of this sequence is under way. */
  busy = false;

  constructor(row: number) {
    this.row = row;
  }

  /** Makes room for a new sequence; handles of the one before stay at an end. */
  begin(): void {
    this.lineage.end();
    this.lineage = new Lineage();
    this.taken = true;
    this.length = 0;
  }
}

/** A sequence's place among those that are decoded together. */
export class SlotCache implements StepCache, Stamped {
  readonly slot: Slot;
  readonly length: number;
  readonly stamp: number;
  readonly #lineage: Lineage;
  readonly #release: (slot: Slot) => void;

  constructor(slot: Slot, length: number, stamp: number, release: (slot: Slot) => void) {
    this.slot = slot;
    this.length = length;
    this.stamp = stamp;
    this.#lineage = slot.lineage;
    this.#release = release;
  }

  /** @throws InferenceError `CACHE_STALE` */
  assertValid(): void {
    this.#lineage.assertValid(this);
  }

  get isNewest(): boolean {
    return this.#lineage.isNewest(this);
  }

  truncate(length: number): SlotCache {
    assertLength(length, this.length);
    this.assertValid();
    if (this.slot.busy) throw stale('no step under way', 'one that writes to the same memory');
    this.slot.length = length;
    return new SlotCache(this.slot, length, this.#lineage.cut(length), this.#release);
  }

  dispose(): void {
    if (this.#lineage.ended) return;
    this.#lineage.end();
    this.#release(this.slot);
  }
}

/** @throws InferenceError `TOKENS_INVALID` */
export function oneSequence(inputIds: readonly (readonly number[])[]): readonly number[] {
  const [ids] = inputIds;
  const wrong = ids?.find((id) => !Number.isSafeInteger(id) || id < 0);
  if (inputIds.length === 1 && ids !== undefined && ids.length > 0 && wrong === undefined) return ids;
  throw new InferenceError('TOKENS_INVALID', 'The token ids cannot be used.', {
    expected: 'one sequence of at least one token; whole numbers of 0 or more',
    found: wrong === undefined ? `${inputIds.length} sequences` : String(wrong),
  });
}

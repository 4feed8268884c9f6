import type { BindableSession } from '../session/native/bindable-session.js';
import type { ResidentTensor } from '../session/native/resident-tensor.js';
import { zeroTensor } from '../tensor/make.js';
import type { TensorValue } from '../tensor/types.js';
import { Lineage } from './lineage.js';

/** One entry of the cache: `[batch, heads, positions, size]`, read and written by two names of the graph. */
export interface BufferShape {
  readonly past: string;
  readonly present: string;
  readonly type: 'float32' | 'float16' | 'float64' | 'int8' | 'uint8';
  readonly heads: number;
  readonly size: number;
  /** Entries of one group grow together: an operator wants its keys and values equally long. */
  readonly group: string;
}

interface Entry {
  readonly shape: BufferShape;
  capacity: number;
  data: NumberArray;
  /** Tensors over some of the rows, which lie one behind the other; by first row and number of rows. */
  parts: Map<string, ResidentTensor>;
}

type NumberArray = Exclude<TensorValue['data'], string[] | BigInt64Array | BigUint64Array>;

/** Positions are made room for in blocks of this many. */
const BLOCK = 64;
/** So many positions before the room ends, the groups begin to move into larger memory, a few a step. */
const MARGIN = 64;

/** What a run binds: the same tensors under the names of the past and of the present. */
export interface Bindings {
  readonly feeds: Record<string, ResidentTensor>;
  readonly outputs: Record<string, ResidentTensor>;
}

/**
 * Keys and values of several sequences in memory with room to grow, where an attention operator appends in place.
 *
 * Row after row, so that one sequence's part is a tensor by itself. Fresh memory is only reserved: what was never
 * written costs nothing.
 */
export class KeyValueBuffers {
  readonly batch: number;
  readonly lineage = new Lineage();
  /** While a run writes behind the newest handle. */
  busy = false;
  readonly #session: BindableSession;
  readonly #entries: Entry[];
  /** The same object as long as the memory is the same. */
  readonly #bindings = new Map<string, Bindings>();

  constructor(session: BindableSession, shapes: readonly BufferShape[], batch: number, capacity: number) {
    this.batch = batch;
    this.#session = session;
    this.#entries = shapes.map((shape) => {
      const entry = { shape } as Entry;
      // More than was asked for, so that what ends within it never moves.
      this.#replace(entry, roomFor(capacity + MARGIN));
      return entry;
    });
  }

  /**
   * Makes room for so many positions, and some ahead of time where that spares a later step a pause.
   *
   * @param lengths what each row has that must be kept; all that there is room for when absent
   */
  reserve(positions: number, lengths?: readonly number[]): void {
    for (const _ of this.#growth(positions, lengths));
  }

  /**
   * The same, with a pause of the event loop's between two groups: many long rows take a tenth of a second to copy.
   * Nothing else may use the buffers meanwhile.
   */
  async reserveInParts(positions: number, lengths?: readonly number[]): Promise<void> {
    for (const _ of this.#growth(positions, lengths)) await new Promise(setImmediate);
  }

  /** Stops after each group that it has moved. */
  *#growth(positions: number, lengths?: readonly number[]): Generator<void> {
    const groups = new Map<string, Entry[]>();
    for (const entry of this.#entries) {
      const group = groups.get(entry.shape.group);
      if (group === undefined) groups.set(entry.shape.group, [entry]);
      else group.push(entry);
    }
    let ahead = Math.ceil((2 * groups.size) / MARGIN);
    for (const entries of groups.values()) {
      const { capacity } = entries[0]!;
      const must = capacity < positions;
      const may = capacity < positions + MARGIN && ahead > 0;
      if (!must && !may) continue;
      if (!must) ahead -= 1;
      const next = roomFor(Math.max(positions + MARGIN, capacity + (capacity >> 1)));
      for (const entry of entries) this.#replace(entry, next, lengths);
      yield;
    }
  }

  /**
   * Gives every second group more room than its neighbours have, as it comes about while groups move: a graph that joins
   * the caches of several layers can be told from one whose operators each have their own.
   */
  unlevel(): void {
    const groups = [...new Set(this.#entries.map(({ shape }) => shape.group))];
    for (const entry of this.#entries) {
      if (groups.indexOf(entry.shape.group) % 2 === 1) this.#replace(entry, entry.capacity + BLOCK);
    }
  }

  /** For a run over some rows; all of them when absent. */
  bindings(first = 0, count = this.batch - first): Bindings {
    const key = `${first}+${count}`;
    let known = this.#bindings.get(key);
    if (known === undefined) {
      known = this.#bind(key, first, count);
      this.#bindings.set(key, known);
    }
    return known;
  }

  #bind(key: string, first: number, count: number): Bindings {
    return bind(this.#entries, (entry) => {
      let part = entry.parts.get(key);
      if (part === undefined) {
        part = this.#session.resident(rowsOf(entry, first, count));
        entry.parts.set(key, part);
      }
      return part;
    });
  }

  /** Copies the first positions of a row to another, for a sequence that goes on in two ways. */
  copyRow(from: number, to: number, positions: number): void {
    for (const entry of this.#entries) copyRow(entry, entry, from, positions, to);
  }

  /** The same content in memory of its own. */
  fork(lengths: readonly number[], capacity: number): KeyValueBuffers {
    const copy = new KeyValueBuffers(
      this.#session,
      this.#entries.map((entry) => entry.shape),
      this.batch,
      Math.max(capacity, ...lengths),
    );
    this.#entries.forEach((entry, i) => {
      const target = copy.#entries[i]!;
      lengths.forEach((length, row) => {
        copyRow(entry, target, row, length);
      });
    });
    return copy;
  }

  /** A copy of each entry, cut to the longest row; by the name of its past. Shorter rows end in zeros. */
  copyOut(lengths: readonly number[]): Record<string, TensorValue> {
    const positions = Math.max(...lengths);
    return Object.fromEntries(
      this.#entries.map((entry) => {
        const { type, heads, size, past } = entry.shape;
        const dims = [this.batch, heads, positions, size];
        const out = zeroTensor(type, dims);
        const target = { shape: entry.shape, capacity: positions, data: out.data as NumberArray };
        lengths.forEach((length, row) => {
          copyRow(entry, target, row, length);
        });
        return [past, out];
      }),
    );
  }

  /** Bytes that are reserved. */
  get byteLength(): number {
    return this.#entries.reduce((sum, { data }) => sum + data.byteLength, 0);
  }

  dispose(): void {
    if (this.lineage.ended) return;
    this.lineage.end();
    this.#bindings.clear();
    for (const entry of this.#entries.splice(0)) free(entry);
  }

  #replace(entry: Entry, capacity: number, lengths?: readonly number[]): void {
    this.#bindings.clear();
    const { type, heads, size } = entry.shape;
    const tensor = this.#session.zeros(type, [this.batch, heads, capacity, size]);
    const before = entry.data === undefined ? undefined : { ...entry };
    entry.capacity = capacity;
    entry.data = tensor.data as NumberArray;
    if (before !== undefined) {
      for (let row = 0; row < this.batch; row++) {
        copyRow(before, entry, row, lengths?.[row] ?? before.capacity);
      }
      free(before);
    }
    entry.parts = new Map();
  }
}

function roomFor(positions: number): number {
  return Math.max(BLOCK, Math.ceil(positions / BLOCK) * BLOCK);
}

function bind(entries: readonly Entry[], tensorOf: (entry: Entry) => ResidentTensor): Bindings {
  const feeds: Record<string, ResidentTensor> = {};
  const outputs: Record<string, ResidentTensor> = {};
  for (const entry of entries) {
    const tensor = tensorOf(entry);
    feeds[entry.shape.past] = tensor;
    outputs[entry.shape.present] = tensor;
  }
  return { feeds, outputs };
}

function rowsOf({ shape, capacity, data }: Entry, first: number, count: number): TensorValue {
  const row = shape.heads * capacity * shape.size;
  const part = data.subarray(first * row, (first + count) * row);
  return { type: shape.type, dims: [count, shape.heads, capacity, shape.size], data: part } as TensorValue;
}

/** The first positions of every head of a row; the two may have room for different numbers of positions. */
function copyRow(
  from: Pick<Entry, 'shape' | 'capacity' | 'data'>,
  to: Pick<Entry, 'capacity' | 'data'>,
  row: number,
  positions: number,
  toRow = row,
): void {
  const { heads, size } = from.shape;
  const count = Math.min(positions, from.capacity, to.capacity) * size;
  for (let head = 0; head < heads; head++) {
    const start = (row * heads + head) * from.capacity * size;
    to.data.set(from.data.subarray(start, start + count), (toRow * heads + head) * to.capacity * size);
  }
}

function free(entry: Pick<Entry, 'parts'>): void {
  for (const part of entry.parts.values()) part.dispose();
}

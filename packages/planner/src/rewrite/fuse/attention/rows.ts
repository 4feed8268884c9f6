import { CqilError } from '@cqil/core';
import type { LayerAnatomy } from '../../../anatomy/index.js';
import { type GraphFacts, usualSituation } from './facts.js';
import type { Numbers } from './probe.js';
import { agree, randomNumbers, toHeads } from './reference.js';

/** Heads before they were split: `value` is `[B, S, heads · D]`, or, where it is not known to be, `[B, heads, S, D]`. */
export interface Rows {
  readonly value: string;
  readonly layout: 'rows' | 'heads';
}

export interface RowsPlace {
  readonly layer: LayerAnatomy;
  readonly hidden: number;
  readonly headSize: number;
  readonly kvHeads: number;
  readonly heads: number;
}

export interface FoundRows {
  /** Of queries, keys and values. */
  readonly rows: readonly [Rows, Rows, Rows];
  /** The value that all three are cut out of, one after the other; `undefined` where there is none. */
  readonly packed: string | undefined;
}

/** What stood before queries, keys and values were split in heads and transposed. */
export async function findRows(
  facts: GraphFacts,
  place: RowsPlace,
  values: readonly [query: string, key: string, value: string],
): Promise<FoundRows> {
  return new RowsFinder(facts, place, values).find();
}

class RowsFinder {
  readonly #batch: number;
  readonly #seq: number;
  /** Heads of queries, keys and values. */
  readonly #counts: readonly number[];

  constructor(
    readonly facts: GraphFacts,
    readonly place: RowsPlace,
    readonly values: readonly [query: string, key: string, value: string],
  ) {
    const { seq, padding } = usualSituation(facts);
    this.#batch = padding.length;
    this.#seq = seq;
    this.#counts = [place.heads, place.kvHeads, place.kvHeads];
  }

  async find(): Promise<FoundRows> {
    const candidates = this.values.map((value) => this.#beforeSplit(value));
    const source = this.#commonSource(candidates);
    const dims = await this.#dims([
      ...new Set([...candidates, source].filter((value) => value !== undefined)),
    ]);
    const isShape = (value: string | undefined, width: number) =>
      value !== undefined && dims.get(value)?.join() === [this.#batch, this.#seq, width].join();
    const usable = candidates.map((value, i) => (isShape(value, this.#width(i)) ? value : undefined));
    const rows = (await this.#checked(usable)) as [Rows, Rows, Rows];
    const width = this.#counts.reduce((sum, _, i) => sum + this.#width(i), 0);
    const packed = isShape(source, width) && (await this.#isPacked(source as string, width, rows));
    return { rows, packed: packed ? source : undefined };
  }

  #width(i: number): number {
    return (this.#counts[i] as number) * this.place.headSize;
  }

  /** Holds what should be heads in rows to the heads. */
  async #checked(candidates: readonly (string | undefined)[]): Promise<Rows[]> {
    const given: Record<string, Numbers> = {};
    for (const [i, candidate] of candidates.entries()) {
      if (candidate !== undefined) given[candidate] = this.#random(this.#width(i), i);
    }
    // All at once: exporters read the lengths for one of the three off another.
    const found = await this.#run(
      given,
      this.values.filter((_, i) => candidates[i] !== undefined),
    );
    return this.values.map((value, i): Rows => {
      const candidate = candidates[i];
      const result = found[value];
      if (candidate === undefined || result === undefined) return { value, layout: 'heads' };
      const count = this.#counts[i] as number;
      const rows = (given[candidate] as Numbers).data;
      const expected = toHeads(rows, this.#batch, this.#seq, count, this.place.headSize);
      return agree(result.data, expected, 0)
        ? { value: candidate, layout: 'rows' }
        : { value, layout: 'heads' };
    });
  }

  async #isPacked(source: string, width: number, rows: readonly Rows[]): Promise<boolean> {
    if (rows.some(({ layout }) => layout !== 'rows')) return false;
    const given = this.#random(width, 3);
    const found = await this.#run(
      { [source]: given },
      rows.map(({ value }) => value),
    );
    let offset = 0;
    for (const [i, { value }] of rows.entries()) {
      const end = offset + this.#width(i);
      const expected = given.data.filter((_, at) => at % width >= offset && at % width < end);
      if (!agree(found[value]?.data ?? [], expected, 0)) return false;
      offset = end;
    }
    return true;
  }

  #random(width: number, seed: number): Numbers {
    return randomNumbers([this.#batch, this.#seq, width], 5 + seed);
  }

  /** The shapes that values really have, for a stream of zeros. */
  async #dims(values: readonly string[]): Promise<Map<string, readonly number[]>> {
    const { layer, hidden } = this.place;
    if (values.length === 0) return new Map();
    const found = await orNothing(
      this.facts.probe.with(layer.input, [layer.input], values, { hidden }, (run) =>
        run(usualSituation(this.facts)),
      ),
    );
    return new Map(Object.entries(found).map(([name, { dims }]) => [name, dims]));
  }

  async #run(
    given: Readonly<Record<string, Numbers>>,
    to: readonly string[],
  ): Promise<Readonly<Record<string, Numbers>>> {
    const { layer, hidden } = this.place;
    if (to.length === 0) return {};
    const from = Object.keys(given);
    const rank = Object.fromEntries(from.map((name) => [name, 3]));
    return orNothing(
      this.facts.probe.with(layer.input, from, [...new Set(to)], { hidden, rank }, (run) =>
        run(usualSituation(this.facts), given),
      ),
    );
  }

  #beforeSplit(value: string): string | undefined {
    const { dataflow } = this.facts;
    const transposed = dataflow.producer(value);
    const perm = transposed?.node.attribute.find(({ name }) => name === 'perm')?.ints.map(Number);
    if (transposed?.op !== 'Transpose' || perm?.join() !== '0,2,1,3') return undefined;
    const split = dataflow.producer(transposed.inputs[0] ?? '');
    return split?.op === 'Reshape' ? split.inputs[0] : undefined;
  }

  /** One value that three others are cut out of. */
  #commonSource(values: readonly (string | undefined)[]): string | undefined {
    const sources = values.map((value) => {
      const maker = value === undefined ? undefined : this.facts.dataflow.producer(value);
      return maker?.op === 'Slice' || maker?.op === 'Split' ? maker.inputs[0] : undefined;
    });
    return new Set(sources).size === 1 ? sources[0] : undefined;
  }
}

/** Nothing where a part cannot be cut out, or ONNX Runtime does not run it on these shapes. */
async function orNothing(
  run: Promise<Readonly<Record<string, Numbers>>>,
): Promise<Readonly<Record<string, Numbers>>> {
  try {
    return await run;
  } catch (error) {
    if (error instanceof CqilError) return {};
    throw error;
  }
}

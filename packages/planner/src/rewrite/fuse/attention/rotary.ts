import { createHash } from 'node:crypto';
import type { LayerAnatomy } from '../../../anatomy/index.js';
import { describeNode, type Node } from '../../../onnx/index.js';
import { type GraphFacts, ran, refuse, tolerance, usualSituation } from './facts.js';
import { type Numbers, positionsOf, type RunPart, type Situation } from './probe.js';
import { agree, randomNumbers, rotated } from './reference.js';

/** Cosines and sines by position, `[positions, half]`, row-major. */
export interface RotaryTable {
  readonly positions: number;
  readonly half: number;
  readonly cos: Float32Array;
  readonly sin: Float32Array;
  /** The same for the same table. */
  readonly key: string;
}

/** A rotary embedding of queries or keys. */
export interface Rotary {
  /** What is rotated, `[B, H, S, D]`. */
  readonly input: string;
  readonly interleaved: boolean;
  readonly table: RotaryTable;
}

/** Operators that a rotary embedding is written with. */
const PARTS = new Set([
  'Add',
  'Sub',
  'Mul',
  'Neg',
  'Concat',
  'Slice',
  'Split',
  'Cast',
  'Identity',
  'Reshape',
  'Squeeze',
  'Unsqueeze',
  'Gather',
  'ScatterElements',
  'Transpose',
]);

/** Finds rotary embeddings of one graph; tables that layers share are computed once. */
export class RotaryFinder {
  readonly #tables = new Map<string, Promise<FullTable>>();

  constructor(
    readonly facts: GraphFacts,
    readonly positions: number,
  ) {}

  /**
   * Reads how a value was rotated. Where the rotation stands is found by dataflow: what computes the value from one value
   * of the stream and two that depend on positions alone. What it computes is found by running it.
   *
   * @returns `undefined` where the value is not rotated
   * @throws Refused for a rotation that `GroupQueryAttention` does not compute
   */
  async find(
    layer: LayerAnatomy,
    value: string,
    sizes: { heads: number; headSize: number; hidden: number },
  ): Promise<Rotary | undefined> {
    const { dataflow } = this.facts;
    const place = this.#place(layer, value);
    if (place === undefined) return undefined;
    const node = describeNode(dataflow.producer(value)?.node as Node);
    const [left, right] = place.sides;
    if (left === undefined || right === undefined || place.sides.length > 2) {
      throw refuse(
        node,
        'a rotation by cosines and sines',
        `${place.sides.length} values that it depends on besides`,
      );
    }
    return ran(node, async () => {
      const tables = [
        await this.#table(layer, left, sizes, node),
        await this.#table(layer, right, sizes, node),
      ];
      // At position 0 nothing is rotated, so the sines are zero there.
      const sinAt = tables.findIndex(({ first }) => first.every((number) => Math.abs(number) < 1e-6));
      if (sinAt === -1) throw refuse(node, 'sines that are 0 at position 0', 'none');
      const [cos, sin] = [tables[1 - sinAt] as FullTable, tables[sinAt] as FullTable];
      for (const interleaved of [false, true]) {
        const table = halved(cos, sin, interleaved);
        if (
          table !== undefined &&
          (await this.#computes(layer, value, place.input, sizes, table, interleaved))
        ) {
          return { input: place.input, interleaved, table };
        }
      }
      throw refuse(node, 'a rotary embedding, its features split in halves or in pairs', 'other numbers');
    });
  }

  /** The nearest value of the stream that everything on the way to `value` passes, and what it is joined with. */
  #place(layer: LayerAnatomy, value: string): { input: string; sides: string[] } | undefined {
    const { dataflow, constants } = this.facts;
    const moving = dataflow.reachableFrom([layer.input]);
    const isMoving = (name: string) => {
      const maker = dataflow.producer(name);
      return name === layer.input || (maker !== undefined && moving.has(maker));
    };
    const walk = (stop: string | undefined) => {
      const ends = new Set<string>();
      const sides = new Set<string>();
      const seen = new Set<string>();
      for (const open = [value]; open.length > 0; ) {
        const at = open.pop() as string;
        if (seen.has(at)) continue;
        seen.add(at);
        const maker = dataflow.producer(at);
        if (at === stop || maker === undefined || !PARTS.has(maker.op)) {
          ends.add(at);
          continue;
        }
        const inputs = SHAPED.has(maker.op) ? maker.inputs.slice(0, 1) : maker.inputs;
        for (const input of inputs) {
          if (isMoving(input)) open.push(input);
          else if (!constants.has(input)) sides.add(input);
        }
      }
      return { ends, sides, seen };
    };
    const everything = walk(undefined);
    const candidates = [...everything.seen].filter((name) => name !== value && isMoving(name));
    const index = (name: string) => dataflow.producer(name)?.index ?? -1;
    candidates.sort((a, b) => index(b) - index(a));
    for (const input of candidates) {
      const { ends, sides } = walk(input);
      if (ends.size === 1 && ends.has(input) && sides.size >= 2)
        return { input, sides: [...sides].sort((a, b) => index(a) - index(b)) };
    }
    return everything.sides.size === 0 ? undefined : { input: value, sides: [...everything.sides] };
  }

  #table(layer: LayerAnatomy, side: string, sizes: { hidden: number }, node: string): Promise<FullTable> {
    const root = this.#root(side);
    const known = this.#tables.get(root);
    if (known !== undefined) return known;
    const table = this.#readTable(layer, root, sizes, node);
    this.#tables.set(root, table);
    return table;
  }

  /** What layers share of their tables: each unsqueezes them anew. */
  #root(value: string): string {
    const { dataflow } = this.facts;
    for (let at = value; ; ) {
      const maker = dataflow.producer(at);
      if (maker === undefined || !['Unsqueeze', 'Cast', 'Identity'].includes(maker.op)) return at;
      at = maker.inputs[0] as string;
    }
  }

  async #readTable(
    layer: LayerAnatomy,
    root: string,
    { hidden }: { hidden: number },
    node: string,
  ): Promise<FullTable> {
    const { probe } = this.facts;
    const read = (run: RunPart) => async (past: number, seq: number) =>
      asTable(await run({ past, seq, padding: [0] }), root, seq, node);
    // Only lengths are read of the stream and of caches, so their other axes can be small.
    return probe.with(layer.input, [], [root], { hidden: Math.min(hidden, 8), cache: 1 }, async (run) => {
      const rows = read(run);
      const whole = await rows(0, this.positions);
      const count = Math.min(16, this.positions);
      const start = await rows(0, count);
      const last = await rows(this.positions - 1, 1);
      const width = whole.width;
      const same =
        agree(start.data, whole.data.subarray(0, count * width), 1e-6) &&
        agree(last.data, whole.data.subarray((this.positions - 1) * width), 1e-6);
      if (!same)
        throw refuse(
          node,
          'a rotation that depends on positions alone',
          'one that depends on the length, too',
        );
      return { ...whole, positions: this.positions, first: whole.data.subarray(0, width) };
    });
  }

  async #computes(
    layer: LayerAnatomy,
    value: string,
    input: string,
    { heads, headSize, hidden }: { heads: number; headSize: number; hidden: number },
    table: RotaryTable,
    interleaved: boolean,
  ): Promise<boolean> {
    const usual = usualSituation(this.facts);
    const { past, seq, padding } = usual;
    const x = randomNumbers([padding.length, heads, seq, headSize], 4);
    const result = await this.facts.probe.with(layer.input, [input], [value], { hidden }, (run) =>
      run(usual, { [input]: x }),
    );
    const found = result[value] as Numbers;
    if (found.dims.join() !== x.dims.join()) return false;
    const at = positionsAt(usual, this.facts.probe.roles.positions !== undefined);
    const lookUp = (numbers: Float32Array) => (b: number, s: number, i: number) =>
      numbers[(at[b]?.[s] as number) * table.half + i] as number;
    if (past + seq > table.positions) return false;
    const expected = rotated(x, lookUp(table.cos), lookUp(table.sin), table.half, interleaved);
    return agree(found.data, expected, tolerance(this.facts, value));
  }
}

/** Operators whose later inputs say how, not what. */
const SHAPED = new Set(['Reshape', 'Slice', 'Split', 'Squeeze', 'Unsqueeze', 'Gather']);

function positionsAt(situation: Situation, given: boolean): number[][] {
  if (given) return positionsOf(situation);
  return situation.padding.map(() => Array.from({ length: situation.seq }, (_, s) => situation.past + s));
}

/** Cosines or sines as the graph has them, `[positions, width]`, the two halves or pairs alike. */
interface FullTable {
  readonly data: Float32Array;
  readonly width: number;
  readonly positions: number;
  readonly first: Float32Array;
}

function asTable(
  result: Readonly<Record<string, Numbers>>,
  root: string,
  count: number,
  node: string,
): { data: Float32Array; width: number } {
  const { dims, data } = result[root] as Numbers;
  const width = dims.at(-1) ?? 0;
  if (dims.at(-2) === count && dims.slice(0, -2).every((size) => size === 1) && data.length === count * width)
    return { data, width };
  throw refuse(node, `a table [1, ${count}, features] for ${count} positions`, `[${dims.join(', ')}]`);
}

/** One number for each pair of features; `undefined` where the two of a pair are not rotated alike. */
function halved(cos: FullTable, sin: FullTable, interleaved: boolean): RotaryTable | undefined {
  const { width, positions } = cos;
  if (sin.width !== width || width % 2 !== 0) return undefined;
  const half = width / 2;
  const take = ({ data }: FullTable): Float32Array | undefined => {
    const out = new Float32Array(positions * half);
    for (let p = 0; p < positions; p++) {
      for (let i = 0; i < half; i++) {
        const [a, b] = interleaved ? [2 * i, 2 * i + 1] : [i, half + i];
        const value = data[p * width + a] as number;
        if (value !== data[p * width + b]) return undefined;
        out[p * half + i] = value;
      }
    }
    return out;
  };
  const [cosines, sines] = [take(cos), take(sin)];
  if (cosines === undefined || sines === undefined) return undefined;
  const hash = createHash('sha256').update(Buffer.from(cosines.buffer)).update(Buffer.from(sines.buffer));
  return { positions, half, cos: cosines, sin: sines, key: hash.digest('hex') };
}

import {
  decoderFeeds,
  decoderInputs,
  type ElementType,
  type SessionOptions,
  type TensorValue,
  type ValueInfo,
} from '@cqil/runtime-gpu';
import { type CutInput, SubmodelCutter } from '../onnx/extract.js';
import { DataType, type Model, nodeInputs } from '../onnx/index.js';
import { openVariant } from '../variant/index.js';

/** Values by name, of one batch of token ids. */
type Values = Map<string, TensorValue>;

interface StageBatch {
  readonly ids: readonly (readonly number[])[];
  readonly values: Values;
}

const DATA_TYPES: Partial<Record<ElementType, number>> = {
  float32: DataType.FLOAT,
  float16: DataType.FLOAT16,
  float64: DataType.DOUBLE,
  int64: DataType.INT64,
  int32: DataType.INT32,
  int8: DataType.INT8,
  uint8: DataType.UINT8,
  bool: DataType.BOOL,
};

/** Each stage is a session that runs once over all batches. */
const CONFIG = { 'session.enable_cpu_mem_arena': '0', 'session.intra_op.allow_spinning': '0' };

/**
 * Runs a decoder over some text in stages, from one value to the next, so that weights can be changed behind the values
 * that are known already: what a stage needs of those before it is kept, and nothing else.
 *
 * Any graph can be run so, whatever its blocks look like: what depends on a stage's value is told by the graph itself.
 * Values that depend on none of them (masks, rotary tables, the embedding) are computed anew in each stage that needs
 * them.
 */
export class Stages {
  readonly #batches: readonly StageBatch[];
  readonly #stops: readonly string[];
  /** Nodes by the order of the graph, as names of values: those stay when weights change. */
  readonly #reads: ReadonlyMap<string, readonly string[]>;
  readonly #siblings: ReadonlyMap<string, readonly string[]>;
  /** What depends on the value of a stage. */
  readonly #dependent: ReadonlySet<string>;
  readonly #computed = new Set<string>();
  readonly #session: SessionOptions | undefined;
  readonly #tokens: ValueInfo;
  #next = 0;

  /**
   * @param stops values of the graph, in topological order: where the stages end
   * @param batches token ids, `[batches][batch][sequence]`, all of one length in a batch
   */
  constructor(
    model: Model,
    stops: readonly string[],
    batches: readonly (readonly (readonly number[])[])[],
    session?: SessionOptions,
  ) {
    this.#batches = batches.map((ids) => ({ ids, values: new Map() }));
    this.#stops = stops;
    this.#session = session;
    this.#tokens = { name: 'input_ids', elementType: 'int64', shape: ['batch', 'sequence'] };
    const reads = new Map<string, string[]>();
    const siblings = new Map<string, string[]>();
    const dependent = new Set(stops);
    for (const node of model.graph.nodes) {
      const inputs = nodeInputs(node);
      const outputs = node.output.filter((output) => output !== '');
      const depends = inputs.some((input) => dependent.has(input));
      for (const output of outputs) {
        reads.set(output, inputs);
        siblings.set(output, outputs);
        if (depends) dependent.add(output);
      }
    }
    this.#reads = reads;
    this.#siblings = siblings;
    this.#dependent = dependent;
  }

  /**
   * Goes on to the next stage's value.
   *
   * @param model has the values of the model given first; weights of what is behind the last stage may have changed
   * @param use takes the value of one batch after the other
   */
  async next(
    model: Model,
    use: (value: TensorValue, batch: number) => Promise<void> | void,
    signal?: AbortSignal,
  ): Promise<void> {
    const stop = this.#stops[this.#next]!;
    this.#next += 1;
    const known = new Set(this.#batches[0]?.values.keys());
    if (!known.has(stop)) {
      const passed = this.#between(stop, known);
      for (const value of passed) this.#computed.add(value);
    }
    const keep = this.#needed();
    const wanted = [...new Set([stop, ...[...keep].filter((value) => this.#computed.has(value))])].filter(
      (value) => !known.has(value),
    );
    await this.#run(model, known, wanted, stop, use, signal);
    for (const { values } of this.#batches) {
      for (const value of [...values.keys()]) if (!keep.has(value)) values.delete(value);
    }
  }

  /** Values that depend on stages and lie between what is known and a value, that one included. */
  #between(stop: string, known: ReadonlySet<string>): Set<string> {
    const passed = new Set<string>();
    for (const open = [stop]; open.length > 0; ) {
      const value = open.pop()!;
      if (known.has(value) || passed.has(value) || !(this.#dependent.has(value) || value === stop)) continue;
      for (const sibling of this.#siblings.get(value) ?? [value]) passed.add(sibling);
      open.push(...(this.#reads.get(value) ?? []));
    }
    return passed;
  }

  /** Computed values that what is not computed yet, but will be, reads. */
  #needed(): Set<string> {
    const needed = new Set<string>();
    const seen = new Set<string>();
    for (const open = this.#stops.slice(this.#next); open.length > 0; ) {
      const value = open.pop()!;
      if (seen.has(value)) continue;
      seen.add(value);
      if (this.#computed.has(value)) {
        needed.add(value);
        continue;
      }
      open.push(...(this.#reads.get(value) ?? []));
    }
    return needed;
  }

  async #run(
    model: Model,
    known: ReadonlySet<string>,
    wanted: readonly string[],
    stop: string,
    use: (value: TensorValue, batch: number) => Promise<void> | void,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    if (wanted.length === 0) {
      for (const [index, { values }] of this.#batches.entries()) await use(values.get(stop)!, index);
      return;
    }
    const part = new SubmodelCutter(model).cut(this.#cutInputs(known), wanted);
    const session = await openVariant(part, {
      ...this.#session,
      config: { ...CONFIG, ...this.#session?.config },
    });
    try {
      for (const [index, batch] of this.#batches.entries()) {
        signal?.throwIfAborted();
        const cut = session.inputs.filter(({ name }) => known.has(name));
        const rest = session.inputs.filter(({ name }) => !known.has(name));
        const reads = rest.some(({ name }) => name === this.#tokens.name);
        const inputs = decoderInputs(reads ? rest : [this.#tokens, ...rest]);
        const mask = batch.ids.map((row) => row.map(() => 1));
        const feeds: Record<string, TensorValue> = { ...decoderFeeds(inputs, { ids: batch.ids, mask }) };
        if (!reads) delete feeds[this.#tokens.name];
        for (const { name } of cut) feeds[name] = batch.values.get(name)!;
        const results = await session.run(feeds, wanted);
        for (const name of wanted) batch.values.set(name, results[name]!);
        await use(batch.values.get(stop)!, index);
      }
    } finally {
      await session.dispose();
    }
  }

  #cutInputs(known: ReadonlySet<string>): CutInput[] {
    return [...known].map((name, at) => {
      const all = this.#batches.map(({ values }) => values.get(name)!);
      const [first] = all as [TensorValue];
      const shape = first.dims.map((size, axis) =>
        all.every(({ dims }) => dims[axis] === size) ? size : `cut_${at}_${axis}`,
      );
      return { name, dataType: DATA_TYPES[first.type] ?? DataType.UNDEFINED, shape };
    });
  }
}

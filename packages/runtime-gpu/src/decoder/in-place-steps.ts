import { InferenceError } from '../errors.js';
import type { InPlaceCache } from '../kv/in-place-cache.js';
import type { InPlaceKeyValues } from '../kv/in-place-key-values.js';
import type { Bindings, KeyValueBuffers } from '../kv/key-value-buffers.js';
import type { Binding } from '../session/native/binding.js';
import type { ResidentTensor } from '../session/native/resident-tensor.js';
import { rowFeeds } from '../signature/row-feeds.js';
import type { DecoderSignature } from '../signature/signature.js';
import { asFloat32 } from '../tensor/make.js';
import type { TensorOf, TensorValue } from '../tensor/types.js';
import { type Logits, logitsShape } from './logits.js';

export interface InPlaceStep {
  /** The new tokens of each row; rows of different length are padded on the right for the graph. */
  readonly ids: readonly (readonly number[])[];
  readonly cache: InPlaceCache | undefined;
  readonly keepLast: boolean;
  readonly outputs: readonly string[];
  /** Whether a cache with the new tokens is wanted; without, the one that was given stays the newest. */
  readonly advance: boolean;
  /** Positions to make room for at once; the tokens at hand when absent. */
  readonly capacity: number | undefined;
  readonly into: Float32Array | undefined;
  readonly signal: AbortSignal | undefined;
}

export interface InPlaceResult {
  /** `[batch, positions, vocabulary]`; shorter rows have theirs at the end. */
  readonly logits: Logits;
  /** `undefined` when it was not wanted. */
  readonly cache: InPlaceCache | undefined;
  readonly outputs: Readonly<Record<string, TensorValue>>;
}

/** Some rows of the buffers, and what is fed to them. */
export interface RowRun {
  readonly bindings: Bindings;
  /** New tokens of each row, and how many it has already. */
  readonly ids: readonly (readonly number[])[];
  readonly past: readonly number[];
}

export interface RowRunOptions {
  readonly keepLast: boolean;
  readonly outputs?: readonly string[];
  /** Where the logits may be written, if they fit. */
  readonly into?: Float32Array | undefined;
  readonly signal?: AbortSignal | undefined;
}

interface LogitsTarget {
  readonly tensor: TensorOf<'float32'>;
  readonly resident: ResidentTensor;
}

interface RunResult {
  readonly logits: Logits;
  readonly outputs: Readonly<Record<string, TensorValue>>;
}

/** Steps of a decoder whose attention operators append to the cache in place. */
export class InPlaceSteps {
  readonly keyValues: InPlaceKeyValues;
  readonly #signature: DecoderSignature;
  readonly #bound = new WeakMap<Bindings, Binding>();
  readonly #targets = new WeakMap<Float32Array, LogitsTarget>();

  constructor(keyValues: InPlaceKeyValues, signature: DecoderSignature) {
    this.keyValues = keyValues;
    this.#signature = signature;
  }

  /** @throws InferenceError `CACHE_STALE`, and what `Session.run` throws; the cache that was given stays as it is then */
  async step(request: InPlaceStep): Promise<InPlaceResult> {
    const { ids, cache } = request;
    const past = cache?.lengths ?? ids.map(() => 0);
    const { value, cache: next } = await this.keyValues.append(
      {
        cache,
        counts: ids.map((row) => row.length),
        advance: request.advance,
        capacity: request.capacity,
      },
      async (buffers, lengths) => {
        const results: RunResult[] = [];
        for (const run of this.#runsOf(buffers, ids, past)) results.push(await this.run(run, request));
        return {
          logits: joinRows(results.map(({ logits }) => logits)),
          outputs: {
            ...joinOutputs(results.map(({ outputs }) => outputs)),
            ...this.#presents(buffers, lengths, request.outputs),
          },
        };
      },
    );
    return { ...value, cache: next };
  }

  /**
   * One run for the whole batch where the graph can do it; else one a row. The operator reads several new tokens behind a
   * past of one sequence only, and several sequences from their start or by one token each.
   */
  #runsOf(buffers: KeyValueBuffers, ids: readonly (readonly number[])[], past: readonly number[]): RowRun[] {
    const single = ids.every((row) => row.length === 1);
    const fresh = past.every((length) => length === 0);
    const even = ids.every((row, i) => row.length === ids[0]!.length && past[i] === past[0]);
    if (ids.length === 1 || ((single || fresh) && (even || this.keyValues.ragged))) {
      return [{ bindings: buffers.bindings(), ids, past }];
    }
    return ids.map((row, i) => ({ bindings: buffers.bindings(i, 1), ids: [row], past: [past[i]!] }));
  }

  /** One run of the graph. Whose the rows are, and what became of them, is up to the caller. */
  async run({ bindings, ids, past }: RowRun, options: RowRunOptions): Promise<RunResult> {
    const signature = this.#signature;
    const { keepLast, signal } = options;
    const outputs = (options.outputs ?? []).filter((name) => bindings.outputs[name] === undefined);
    const counts = ids.map((row) => row.length);
    const ragged = counts.some((count) => count !== counts[0]);
    const positions = keepLast && !ragged && signature.logitsToKeep !== undefined ? 1 : Math.max(...counts);
    const target = this.#target(options.into, ids.length, positions);
    const results = await this.keyValues.session.runBound(
      this.#binding(bindings, outputs),
      rowFeeds(signature, { ids, past, keepLast: keepLast && !ragged }),
      signal === undefined ? {} : { signal },
      target === undefined ? {} : { [signature.logits]: target.resident },
    );
    const logits = target?.tensor ?? results[signature.logits]!;
    return {
      logits: alignEnds(logits, signature.logits, counts, keepLast),
      outputs: Object.fromEntries(outputs.map((name) => [name, results[name]!])),
    };
  }

  #binding(bindings: Bindings, outputs: readonly string[]): Binding {
    const bind = () =>
      this.keyValues.session.bind(bindings.feeds, {
        [this.#signature.logits]: 'tensor',
        ...Object.fromEntries(outputs.map((name) => [name, 'tensor' as const])),
        ...bindings.outputs,
      });
    if (outputs.length > 0) return bind();
    let known = this.#bound.get(bindings);
    if (known === undefined) {
      known = bind();
      this.#bound.set(bindings, known);
    }
    return known;
  }

  /** The caller's memory for logits, where it is known to be what the graph will give. */
  #target(into: Float32Array | undefined, batch: number, positions: number): LogitsTarget | undefined {
    const info = this.keyValues.session.outputs.find(({ name }) => name === this.#signature.logits)!;
    const vocabulary = info.shape[2];
    if (into === undefined || info.elementType !== 'float32' || typeof vocabulary !== 'number')
      return undefined;
    const length = batch * positions * vocabulary;
    if (into.length < length) return undefined;
    const known = this.#targets.get(into);
    if (known?.tensor.dims[0] === batch && known.tensor.dims[1] === positions) return known;
    const tensor = {
      type: 'float32',
      dims: [batch, positions, vocabulary],
      data: into.subarray(0, length),
    } as const;
    const made = { tensor, resident: this.keyValues.session.resident(tensor) };
    this.#targets.set(into, made);
    return made;
  }

  /** Cache entries that were asked for by name: they lie in the buffers, with room behind them. */
  #presents(
    buffers: KeyValueBuffers,
    lengths: readonly number[],
    names: readonly string[],
  ): Record<string, TensorValue> {
    const wanted = this.keyValues.shapes.filter(({ present }) => names.includes(present));
    if (wanted.length === 0) return {};
    const all = buffers.copyOut(lengths);
    return Object.fromEntries(wanted.map(({ past, present }) => [present, all[past]!]));
  }
}

/** The logits of each row's own last positions, at the end; or of the very last alone. */
function alignEnds(tensor: TensorValue, name: string, counts: readonly number[], keepLast: boolean): Logits {
  const data = asFloat32(tensor, name);
  const [batch, positions, vocabulary] = logitsShape(tensor);
  const width = keepLast ? 1 : positions;
  if (width === positions && counts.every((count) => count === counts[0])) {
    return { dims: [batch, positions, vocabulary], data };
  }
  const out = new Float32Array(batch * width * vocabulary);
  counts.forEach((count, row) => {
    const kept = Math.min(width, count);
    // The graph may have given the last position only.
    const end = row * positions + Math.min(positions, count);
    out.set(
      data.subarray((end - kept) * vocabulary, end * vocabulary),
      ((row + 1) * width - kept) * vocabulary,
    );
  });
  return { dims: [batch, width, vocabulary], data: out };
}

function joinRows(rows: readonly Logits[]): Logits {
  if (rows.length === 1) return rows[0]!;
  const width = Math.max(...rows.map(({ dims }) => dims[1]));
  const vocabulary = rows[0]!.dims[2];
  const data = new Float32Array(rows.length * width * vocabulary);
  rows.forEach((row, i) => {
    data.set(row.data, (i + 1) * width * vocabulary - row.data.length);
  });
  return { dims: [rows.length, width, vocabulary], data };
}

function joinOutputs(rows: readonly RunResult['outputs'][]): RunResult['outputs'] {
  if (rows.length === 1) return rows[0]!;
  if (Object.keys(rows[0]!).length === 0) return {};
  throw new InferenceError(
    'OUTPUT_UNKNOWN',
    'Further outputs cannot be had of a batch that is run row by row.',
    {
      expected: 'one sequence, one new token a sequence, or no cache',
      found: `${rows.length} sequences with several new tokens behind a cache`,
      hint: 'Run the sequences one by one.',
    },
  );
}

import { CqilError } from '@cqil/core';
import {
  type CachePair,
  type DecoderSignature,
  decoderSignature,
  InPlaceCache,
  InPlaceKeyValues,
  type KeyValueBuffers,
  type NativeSession,
  type TensorValue,
} from '@cqil/runtime-gpu';
import type { Feeds, OrtTensorClass, Results } from '../ort.js';
import { toTensor, toValue } from '../tensors.js';
import { type CacheState, copyPositions, InPlaceState, OutputState } from './cache-state.js';
import { type CacheTensorClass, cacheTensorClass } from './cache-tensor.js';
import type { PrefixStore } from './prefix-store.js';
import { type DecoderStep, readStep } from './step.js';
import { Tokens } from './tokens.js';

/** Positions that a new cache has room for behind its prompt. Memory that is never written costs nothing. */
const ROOM = 256;

export interface DecoderOptions {
  readonly Tensor: OrtTensorClass;
  /** Where caches are kept for later prompts. */
  readonly prefixes: PrefixStore | undefined;
}

interface Run {
  readonly feeds: Feeds;
  /** Names of the outputs that are wanted. */
  readonly names: readonly string[];
  readonly step: DecoderStep;
  /** What is continued. */
  readonly state: CacheState | undefined;
  /** What was known of its tokens when the run was asked for. */
  readonly tokens: Tokens | undefined;
  /** New tokens, and positions before them: those of the step, or fewer and more where a prefix was found. */
  readonly count: number;
  readonly pastLength: number;
}

/** A decoder's runs: with its cache written in place where the graph does that, else without copying it. */
export class Decoder {
  readonly #session: NativeSession;
  readonly #signature: DecoderSignature;
  readonly #keyValues: InPlaceKeyValues | undefined;
  readonly #Tensor: OrtTensorClass;
  readonly #CacheTensor: CacheTensorClass;
  readonly #prefixes: PrefixStore | undefined;
  /** Names of outputs that are no part of the cache. */
  readonly #presents: ReadonlyMap<string, number>;

  private constructor(
    session: NativeSession,
    signature: DecoderSignature,
    keyValues: InPlaceKeyValues | undefined,
    { Tensor, prefixes }: DecoderOptions,
  ) {
    this.#session = session;
    this.#signature = signature;
    this.#keyValues = keyValues;
    this.#Tensor = Tensor;
    this.#CacheTensor = cacheTensorClass(Tensor);
    this.#prefixes = prefixes;
    this.#presents = new Map(signature.cache.map(({ present }, entry) => [present, entry]));
  }

  /** `undefined` for a graph that is no decoder with a cache of keys and values. Takes a few steps of one that is. */
  static async of(session: NativeSession, options: DecoderOptions): Promise<Decoder | undefined> {
    const signature = signatureOf(session);
    if (signature === undefined) return undefined;
    return new Decoder(session, signature, await InPlaceKeyValues.prove(session, signature), options);
  }

  /** Whether the cache is written in place. */
  get inPlace(): boolean {
    return this.#keyValues !== undefined;
  }

  /**
   * @param names of the outputs that are wanted
   * @param lastOnly tells whether who calls reads the last position's logits only
   * @returns `undefined` for feeds that are to be run as they are
   * @throws as `NativeSession.execute`
   */
  async run(feeds: Feeds, names: readonly string[], lastOnly: () => boolean): Promise<Results | undefined> {
    const step = readStep(this.#signature, feeds);
    if (step === undefined) return undefined;
    const { state, count, pastLength } = step;
    const shorter = pastLength === 0 ? this.#shorter(feeds, names, step, lastOnly) : undefined;
    const run = shorter ?? { feeds, names, step, state, tokens: state?.tokens, count, pastLength };
    const memory = run.state?.memory;
    memory?.retain();
    try {
      return await (this.#goesInPlace(run) ? this.#runInPlace(run, this.#keyValues!) : this.#runApart(run));
    } finally {
      memory?.release();
    }
  }

  /** The same prompt behind what is known of it already. */
  #shorter(
    feeds: Feeds,
    names: readonly string[],
    step: DecoderStep,
    lastOnly: () => boolean,
  ): Run | undefined {
    const { logits, inputIds, positionIds } = this.#signature;
    const prefixes = this.#prefixes;
    if (step.tokens === undefined || prefixes?.has(this.#session) !== true) return undefined;
    if (!names.every((name) => name === logits || this.#presents.has(name))) return undefined;
    const kept = step.logitsToKeep ?? 0;
    if (kept === 0 && names.includes(logits) && !lastOnly()) return undefined;
    const { ids, positions } = step.tokens;
    const found = prefixes.find(this.#session, ids, positions, step.count - Math.max(1, kept));
    if (found === undefined) return undefined;
    const { state, length } = found;
    const cut: Record<string, Feeds[string]> = { ...feeds };
    for (const input of [inputIds, positionIds]) {
      if (input === undefined) continue;
      const value = toValue(feeds[input.name]!);
      const data = (value.data as BigInt64Array).slice(length);
      cut[input.name] = toTensor(this.#Tensor, { ...value, dims: [1, data.length], data } as TensorValue);
    }
    return {
      feeds: cut,
      names,
      step,
      state,
      tokens: state.tokens?.first(length),
      count: step.count - length,
      pastLength: length,
    };
  }

  /** Several new tokens behind a past are one sequence's only, and gaps are never right, in place. */
  #goesInPlace({ step, count, pastLength }: Run): boolean {
    return (
      this.#keyValues !== undefined && step.unpadded && (step.batch === 1 || count === 1 || pastLength === 0)
    );
  }

  async #runInPlace(run: Run, keyValues: InPlaceKeyValues): Promise<Results> {
    const { feeds, names, step, pastLength, count } = run;
    const { cache, copyFrom, forked } = this.#continued(run);
    const rest = names.filter((name) => !this.#presents.has(name));
    const capacity = pastLength + count + ROOM;
    try {
      const { value, cache: next } = await keyValues.append(
        {
          cache,
          counts: new Array<number>(step.batch).fill(cache === undefined ? pastLength + count : count),
          advance: rest.length < names.length,
          ...(cache === undefined ? { capacity } : {}),
        },
        (buffers) => {
          const { feeds: pasts, outputs } = buffers.bindings();
          if (copyFrom !== undefined) this.#copyInto(buffers, copyFrom, pastLength);
          const others = this.#session.inputs
            .filter(({ name }) => pasts[name] === undefined)
            .map(({ name }) => [name, toValue(feeds[name]!)] as const);
          return this.#session.execute(
            { ...Object.fromEntries(others), ...pasts },
            { ...Object.fromEntries(rest.map((name) => [name, 'tensor' as const])), ...outputs },
          );
        },
      );
      if (next === undefined) forked?.dispose();
      const results: Results = {};
      const state =
        next === undefined ? undefined : new InPlaceState(next, keyValues.shapes, this.#tokensAfter(run));
      for (const name of names) {
        const entry = this.#presents.get(name);
        results[name] =
          entry === undefined ? toTensor(this.#Tensor, value[name]!) : new this.#CacheTensor(state!, entry);
      }
      if (state !== undefined) this.#prefixes?.put(this.#session, state);
      return results;
    } catch (error) {
      forked?.dispose();
      throw error;
    }
  }

  /** What an in-place run appends to: a cache, or nothing, into which tensors of the program's are copied. */
  #continued({ state, pastLength, feeds, step }: Run): {
    cache?: InPlaceCache;
    copyFrom?: (entry: number) => TensorValue;
    forked?: KeyValueBuffers;
  } {
    if (pastLength === 0) return {};
    if (state instanceof InPlaceState) {
      if (state.length === pastLength) return { cache: state.cache };
      const lengths = new Array<number>(step.batch).fill(pastLength);
      const forked = state.cache.buffers.fork(lengths, step.count + ROOM);
      return { cache: new InPlaceCache(forked, lengths, forked.lineage.append()), forked };
    }
    if (state !== undefined) return { copyFrom: (entry) => state.read(entry) };
    return { copyFrom: (entry) => toValue(feeds[this.#signature.cache[entry]!.past.name]!) };
  }

  #copyInto(buffers: KeyValueBuffers, read: (entry: number) => TensorValue, positions: number): void {
    const { feeds } = buffers.bindings();
    this.#signature.cache.forEach(({ past, sequenceAxis }, entry) => {
      const { dims, memory } = feeds[past.name]!;
      const target = { dims, data: memory as TensorValue['data'] };
      copyPositions(read(entry), target, sequenceAxis!, positions);
    });
  }

  /** As the graph is made: what it gives back is a new cache, which the next run takes as it is. */
  async #runApart(run: Run): Promise<Results> {
    const { feeds, names } = run;
    const values = await this.#session.execute(
      Object.fromEntries(
        this.#session.inputs.map(({ name }) => [name, this.#pastOf(run, name) ?? toValue(feeds[name]!)]),
      ),
      Object.fromEntries(names.map((name) => [name, 'tensor' as const])),
    );
    const state = this.#stateOf(run, values);
    const results: Results = {};
    for (const name of names) {
      const entry = this.#presents.get(name);
      results[name] =
        entry === undefined || state === undefined
          ? toTensor(this.#Tensor, values[name]!)
          : new this.#CacheTensor(state, entry);
    }
    if (state !== undefined) this.#prefixes?.put(this.#session, state);
    return results;
  }

  #pastOf({ state, pastLength }: Run, name: string): TensorValue | undefined {
    const entry = this.#signature.cache.findIndex(({ past }) => past.name === name);
    if (entry === -1 || state === undefined) return undefined;
    return state.length === pastLength ? state.read(entry) : state.readFirst(entry, pastLength);
  }

  /** The whole cache, where all of it was asked for. */
  #stateOf(run: Run, values: Readonly<Record<string, TensorValue>>): CacheState | undefined {
    const { cache } = this.#signature;
    const parts = cache.map(({ present }) => values[present]);
    if (!parts.every((part) => part !== undefined)) return undefined;
    const length = run.pastLength + run.count;
    // A graph may keep fewer positions than it was given (a window).
    const whole = parts.every(({ dims }, i) => dims[cache[i]!.sequenceAxis!] === length);
    return new OutputState(cache, parts, length, whole ? this.#tokensAfter(run) : undefined);
  }

  #tokensAfter({ step, tokens, state, pastLength }: Run): Tokens | undefined {
    if (step.tokens === undefined) return undefined;
    const { ids, positions } = step.tokens;
    if (pastLength === 0) return Tokens.of(ids, positions);
    if (state === undefined || tokens === undefined) return undefined;
    // Of a step that goes on from a prefix, the first are in there.
    const from = step.pastLength === 0 ? pastLength : 0;
    return tokens.append(ids.slice(from), positions?.slice(from));
  }
}

/** `undefined` where there is no cache of which every entry grows position by position. */
function signatureOf(session: NativeSession): DecoderSignature | undefined {
  try {
    const signature = decoderSignature(session.inputs, session.outputs);
    const grows = ({ sequenceAxis, past }: CachePair) => sequenceAxis !== undefined && past.shape.length > 1;
    return signature.cache.length > 0 && signature.cache.every(grows) ? signature : undefined;
  } catch (error) {
    if (error instanceof CqilError && error.code === 'NOT_A_DECODER') return undefined;
    throw error;
  }
}

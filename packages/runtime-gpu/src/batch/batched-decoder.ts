import type { DecoderSession } from '../decoder/decoder.js';
import type { InPlaceSteps } from '../decoder/in-place-steps.js';
import type { Logits } from '../decoder/logits.js';
import type { StepModel, StepRequest, StepResult } from '../decoder/step-model.js';
import { InferenceError } from '../errors.js';
import { KeyValueBuffers } from '../kv/key-value-buffers.js';
import type { DecoderSignature } from '../signature/signature.js';
import { oneSequence, Slot, SlotCache } from './slot.js';

export interface BatchOptions {
  /** Sequences that may be in memory at the same time, kept caches included; 8 when absent. */
  readonly slots?: number;
  /** Tokens of a prompt that are read between two steps of the others; 256 when absent. */
  readonly promptChunk?: number;
}

interface Waiting {
  readonly ids: readonly number[];
  readonly request: StepRequest;
  readonly resolve: (result: StepResult) => void;
  readonly reject: (error: unknown) => void;
  /** Set when the sequence has its place. */
  slot: Slot | undefined;
  /** Tokens that were in the slot before. */
  before: number;
  /** Tokens of `ids` that were read already, and their logits where all are wanted. */
  read: number;
  logits: Logits[];
}

/**
 * Many sequences through one model at the same time (continuous batching): each is fed by itself, as to a
 * `DecoderSession`, and steps of one token that are asked for together become one run. Sequences join and leave between
 * steps; a long prompt is read in parts, and the others go on in between.
 *
 * What a sequence gets does not depend on who else is there, up to the rounding of kernels for several rows. With a graph
 * that cannot take rows of different lengths (tried out when it is opened), sequences take turns instead; `joins` says so.
 *
 * @example
 * ```ts
 * const decoder = await DecoderSession.open('model/onnx/model.onnx');
 * const batched = await BatchedDecoder.over(decoder, { slots: 8 });
 * const answers = await Promise.all(prompts.map((promptIds) => generate(batched, { promptIds, maxTokens: 50 })));
 * batched.dispose();
 * await decoder.dispose();
 * ```
 */
export class BatchedDecoder implements StepModel {
  readonly signature: DecoderSignature;
  readonly #steps: InPlaceSteps;
  readonly #buffers: KeyValueBuffers;
  readonly #slots: readonly Slot[];
  readonly #chunk: number;
  /** Steps of one token, prompts under way, and sequences that wait for a place; each in the order they came. */
  #stepping: Waiting[] = [];
  #reading: Waiting[] = [];
  #arriving: Waiting[] = [];
  #pumping = false;
  /** Of all rows, step after step. */
  #logits: Float32Array | undefined;
  /** The most tokens that each row has had: so much of its memory is in use, and stays so. */
  readonly #touched: number[];
  #disposed = false;

  private constructor(decoder: DecoderSession, steps: InPlaceSteps, slots: number, chunk: number) {
    const { session, shapes } = steps.keyValues;
    this.signature = decoder.signature;
    this.#steps = steps;
    this.#buffers = new KeyValueBuffers(session, shapes, slots, 1);
    this.#slots = Array.from({ length: slots }, (_, row) => new Slot(row));
    this.#touched = this.#slots.map(() => 0);
    this.#chunk = chunk;
  }

  /**
   * @param decoder stays the caller's, and must live as long as this does
   * @throws InferenceError `BATCH_UNSUPPORTED` where the graph does not append to its cache in place, or the session is
   *   not native; `BATCH_OPTIONS`
   */
  static async over(decoder: DecoderSession, options: BatchOptions = {}): Promise<BatchedDecoder> {
    const { slots = 8, promptChunk = 256 } = options;
    for (const [name, value] of Object.entries({ slots, promptChunk })) {
      if (Number.isInteger(value) && value >= 1) continue;
      throw new InferenceError('BATCH_OPTIONS', `"${name}" makes no sense.`, {
        expected: 'a whole number of 1 or more',
        found: String(value),
      });
    }
    const steps = await decoder.inPlaceSteps();
    if (steps === undefined) {
      throw new InferenceError('BATCH_UNSUPPORTED', 'Sequences cannot be decoded together with this model.', {
        expected: 'a native session, and attention that appends to its cache in place (GroupQueryAttention)',
        found: `a ${decoder.session.binding} session of ${decoder.session.model}, tried out without success`,
        hint: 'Serve one sequence at a time, or fuse the graph with `cqil fuse`.',
      });
    }
    return new BatchedDecoder(decoder, steps, slots, promptChunk);
  }

  /** Whether steps of several sequences become one run. */
  get joins(): boolean {
    return this.#steps.keyValues.ragged;
  }

  /** Sequences in memory, caches that are kept for later included. */
  get sequences(): number {
    return this.#slots.filter(({ taken }) => taken).length;
  }

  /** Tokens that there is memory in use for, also where their sequences are gone. */
  get tokens(): number {
    return this.#touched.reduce((sum, count) => sum + count, 0);
  }

  /** Sequences that wait for a place. */
  get waiting(): number {
    return this.#arriving.length;
  }

  /**
   * Feeds new tokens of one sequence. A sequence without a cache gets a place as soon as one is free: `dispose` of a
   * cache frees one.
   *
   * @throws InferenceError `TOKENS_INVALID`, `CACHE_STALE`, `SESSION_DISPOSED`, `RUN_FAILED` for what these tokens
   *   did alone; the signal's reason, after the run that is under way
   */
  forward(request: StepRequest): Promise<StepResult> {
    return new Promise((resolve, reject) => {
      request.signal?.throwIfAborted();
      this.#assertAlive();
      const ids = oneSequence(request.inputIds);
      const waiting: Waiting = {
        ids,
        request,
        resolve,
        reject,
        slot: undefined,
        before: 0,
        read: 0,
        logits: [],
      };
      this.#arriving.push(waiting);
      void this.#pump();
    });
  }

  /** Frees the memory. Requests that wait are refused; a run under way is waited for by those who asked for it. */
  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    if (!this.#pumping) this.#end();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  #assertAlive(): void {
    if (!this.#disposed) return;
    throw new InferenceError('SESSION_DISPOSED', 'The batch was disposed.', { hint: 'Make another.' });
  }

  #end(): void {
    const left = [...this.#stepping, ...this.#reading, ...this.#arriving];
    this.#stepping = [];
    this.#reading = [];
    this.#arriving = [];
    for (const { reject } of left) {
      reject(new InferenceError('SESSION_DISPOSED', 'The batch was disposed.'));
    }
    for (const slot of this.#slots) slot.lineage.end();
    this.#buffers.dispose();
  }

  /** Runs as long as somebody waits for something that can be done. */
  async #pump(): Promise<void> {
    if (this.#pumping) return;
    this.#pumping = true;
    try {
      for (;;) {
        // Whoever got a token in the last run asks for the next one now.
        await new Promise(setImmediate);
        if (this.#disposed) break;
        this.#place();
        if (this.#stepping.length === 0 && this.#reading.length === 0) break;
        await this.#stepTogether();
        if (this.#disposed) break;
        await this.#readOn();
      }
    } finally {
      this.#pumping = false;
      if (this.#disposed) this.#end();
    }
  }

  /** Gives those who came a place, in their order; who cannot have one waits. */
  #place(): void {
    const left: Waiting[] = [];
    for (const waiting of this.#arriving) {
      try {
        waiting.request.signal?.throwIfAborted();
        const slot = this.#slotFor(waiting.request.cache as SlotCache | undefined);
        if (slot === undefined) {
          left.push(waiting);
          continue;
        }
        slot.busy = true;
        waiting.slot = slot;
        waiting.before = slot.length;
        (waiting.ids.length === 1 && slot.length > 0 ? this.#stepping : this.#reading).push(waiting);
      } catch (error) {
        waiting.reject(error);
      }
    }
    this.#arriving = left;
  }

  #slotFor(cache: SlotCache | undefined): Slot | undefined {
    if (cache === undefined) return this.#take();
    cache.assertValid();
    if (cache.isNewest && !cache.slot.busy) return cache.slot;
    // An older cache goes on in a place of its own.
    const slot = this.#take();
    if (slot === undefined) return undefined;
    this.#buffers.reserve(cache.length, this.#lengths());
    this.#buffers.copyRow(cache.slot.row, slot.row, cache.length);
    slot.length = cache.length;
    return slot;
  }

  #lengths(): number[] {
    return this.#slots.map(({ length }) => length);
  }

  /** Runs go one after the other, so that nothing happens to the rows meanwhile. */
  async #reserve(positions: number): Promise<void> {
    await this.#buffers.reserveInParts(positions, this.#lengths());
  }

  /** The first free place: places in use stay together at the front, and a run covers no more than those. */
  #take(): Slot | undefined {
    const slot = this.#slots.find(({ taken }) => !taken);
    slot?.begin();
    return slot;
  }

  readonly #release = (slot: Slot): void => {
    slot.taken = false;
    slot.length = 0;
    if (this.#arriving.length > 0) void this.#pump();
  };

  /** One token of each sequence that waits for its next. */
  async #stepTogether(): Promise<void> {
    const steps = this.#stepping;
    this.#stepping = [];
    if (steps.length === 0) return;
    // A graph that knows one length for all rows takes them one by one.
    if (steps.length === 1 || !this.#steps.keyValues.ragged) {
      for (const waiting of steps) await this.#alone(waiting);
      return;
    }
    const rows = 1 + Math.max(...steps.map(({ slot }) => slot!.row));
    const bySlot = new Map(steps.map((waiting) => [waiting.slot!.row, waiting]));
    try {
      await this.#reserve(1 + Math.max(...this.#slots.slice(0, rows).map(({ length }) => length)));
      // Rows that have nothing to read get a token behind their end, which the next one overwrites.
      const ids = Array.from({ length: rows }, (_, row) => [bySlot.get(row)?.ids[0] ?? 0]);
      const past = this.#slots.slice(0, rows).map(({ length }) => length);
      const { logits } = await this.#steps.run(
        { bindings: this.#buffers.bindings(0, rows), ids, past },
        { keepLast: true, into: this.#logits },
      );
      const vocabulary = logits.dims[2];
      this.#logits ??= new Float32Array(this.#slots.length * vocabulary);
      for (const waiting of steps) {
        const { row } = waiting.slot!;
        const own = logits.data.subarray(row * vocabulary, (row + 1) * vocabulary);
        const data = copyTo(own, waiting.request.into);
        waiting.read = 1;
        waiting.logits = [{ dims: [1, 1, vocabulary], data }];
        this.#answer(waiting);
      }
    } catch {
      // Who is to blame shows when each goes alone; the others must not suffer.
      for (const waiting of steps) await this.#alone(waiting);
    }
  }

  /** The next part of the prompt that came first; it goes to the end of the line if that was not all. */
  async #readOn(): Promise<void> {
    const waiting = this.#reading.shift();
    if (waiting === undefined) return;
    await this.#alone(waiting);
    if (waiting.slot !== undefined && waiting.read < waiting.ids.length) this.#reading.push(waiting);
  }

  async #alone(waiting: Waiting): Promise<void> {
    const { ids, request, read } = waiting;
    const slot = waiting.slot!;
    const all = request.keep !== 'last';
    try {
      request.signal?.throwIfAborted();
      const part = ids.slice(read, read + this.#chunk);
      await this.#reserve(slot.length + part.length);
      const { logits } = await this.#steps.run(
        { bindings: this.#buffers.bindings(slot.row, 1), ids: [part], past: [slot.length] },
        {
          keepLast: !all,
          signal: request.signal,
          into: all && part.length < ids.length ? undefined : request.into,
        },
      );
      waiting.read += part.length;
      slot.length += part.length;
      if (all || waiting.read === ids.length) waiting.logits.push(logits);
      if (waiting.read === ids.length) this.#answer(waiting, slot.length);
    } catch (error) {
      this.#fail(waiting, error);
    }
  }

  #answer(waiting: Waiting, length = waiting.slot!.length + 1): void {
    const slot = waiting.slot!;
    slot.length = length;
    slot.busy = false;
    this.#touched[slot.row] = Math.max(this.#touched[slot.row]!, length);
    const cache = new SlotCache(slot, length, slot.lineage.append(), this.#release);
    if (waiting.request.signal?.aborted && waiting.request.cache === undefined) {
      // Nobody will dispose of it.
      cache.dispose();
      waiting.reject(waiting.request.signal.reason);
      return;
    }
    waiting.resolve({ logits: joinPositions(waiting.logits), cache });
  }

  /** The sequence is as it was before the request; without one before, its place is free again. */
  #fail(waiting: Waiting, error: unknown): void {
    const slot = waiting.slot!;
    waiting.slot = undefined;
    slot.length = waiting.before;
    slot.busy = false;
    const given = waiting.request.cache as SlotCache | undefined;
    if (given === undefined || given.slot !== slot) {
      slot.lineage.end();
      this.#release(slot);
    }
    waiting.reject(error);
  }
}

function copyTo(values: Float32Array, into: Float32Array | undefined): Float32Array {
  if (into === undefined || into.length < values.length) return values.slice();
  into.set(values);
  return into.subarray(0, values.length);
}

function joinPositions(parts: readonly Logits[]): Logits {
  if (parts.length === 1) return parts[0]!;
  const vocabulary = parts[0]!.dims[2];
  const positions = parts.reduce((sum, { dims }) => sum + dims[1], 0);
  const data = new Float32Array(positions * vocabulary);
  let at = 0;
  for (const part of parts) {
    data.set(part.data, at);
    at += part.data.length;
  }
  return { dims: [1, positions, vocabulary], data };
}

import { InferenceError } from '../errors.js';
import { InPlaceCache } from '../kv/in-place-cache.js';
import { InPlaceKeyValues } from '../kv/in-place-key-values.js';
import { KeptCache } from '../kv/kept-cache.js';
import type { DecoderCache } from '../kv/types.js';
import { openSession } from '../session/open.js';
import type { Session, SessionOptions } from '../session/types.js';
import { decoderFeeds } from '../signature/feeds.js';
import { padLeft } from '../signature/padding.js';
import { type DecoderSignature, decoderSignature } from '../signature/signature.js';
import { asFloat32 } from '../tensor/make.js';
import type { TensorValue } from '../tensor/types.js';
import { InPlaceSteps } from './in-place-steps.js';
import { type Logits, logitsShape } from './logits.js';

export interface ForwardRequest {
  /** The new tokens of each sequence; sequences of different length are padded on the left. */
  readonly inputIds: readonly (readonly number[])[];
  /** For ids that are padded already: `[batch, seq]`, 0 at padding. */
  readonly attentionMask?: readonly (readonly number[])[];
  /** What an earlier step of the same sequences gave back. It stays as it is. */
  readonly cache?: DecoderCache;
  /** `last`: logits of the last position only. `all` when absent. */
  readonly keep?: 'all' | 'last';
  /** `false` leaves the new cache out of the result and saves copying it. */
  readonly returnCache?: boolean;
  /** Further outputs of the graph to hand out. */
  readonly outputs?: readonly string[];
  /** Positions that the cache is to hold in the end, where that is known: room is made once. */
  readonly capacity?: number;
  /**
   * Memory that the logits may be written to: those of the result may then lie in it, and are gone when it is used
   * again. Who looks at one step's logits after the other spares the making of an array for each.
   */
  readonly into?: Float32Array;
  /** Ends the step early. */
  readonly signal?: AbortSignal;
}

export interface ForwardResult {
  readonly logits: Logits;
  /** Empty tensors with `returnCache: false`. */
  readonly cache: DecoderCache;
  /** What `outputs` asked for. */
  readonly outputs: Readonly<Record<string, TensorValue>>;
}

/**
 * A decoder language model with its key-value cache, by the naming that Optimum and the ONNX Runtime GenAI
 * builder share.
 *
 * @example
 * ```ts
 * const decoder = await DecoderSession.open('model/onnx/model.onnx');
 * const prompt = await decoder.forward({ inputIds: [[1, 5, 9]], keep: 'last' });
 * const next = await decoder.forward({ inputIds: [[42]], cache: prompt.cache });
 * await decoder.dispose();
 * ```
 */
export class DecoderSession {
  readonly session: Session;
  readonly signature: DecoderSignature;
  #inPlace: Promise<InPlaceSteps | undefined> | undefined;

  constructor(session: Session) {
    this.session = session;
    this.signature = decoderSignature(session.inputs, session.outputs);
  }

  /** @throws InferenceError what `openSession` throws; `NOT_A_DECODER`. */
  static async open(model: string | Uint8Array, options: SessionOptions = {}): Promise<DecoderSession> {
    const session = await openSession(model, options);
    try {
      return new DecoderSession(session);
    } catch (error) {
      await session.dispose();
      throw error;
    }
  }

  /**
   * Feeds new tokens through the model.
   *
   * Where the graph's attention operators append to the cache in place (which is tried out once), nothing of it is
   * copied; continuing an older cache a second time copies it first.
   *
   * @throws InferenceError `TOKENS_INVALID`, `CACHE_MISMATCH` (a cache of another batch), `CACHE_STALE`,
   *   `PADDING_UNSUPPORTED` (the graph has no attention mask), and what `Session.run` throws; the signal's reason.
   */
  async forward(request: ForwardRequest): Promise<ForwardResult> {
    const { cache } = request;
    const { ids, mask } = padLeft(request.inputIds, request.attentionMask);
    if (cache !== undefined && batchOf(cache) !== ids.length) {
      throw new InferenceError('CACHE_MISMATCH', 'The cache belongs to another batch.', {
        expected: `${batchOf(cache)} sequences`,
        found: `${ids.length} sequences`,
      });
    }
    const masked = request.attentionMask?.some((row) => row.includes(0)) === true;
    if (cache instanceof InPlaceCache) {
      if (masked) {
        throw new InferenceError('PADDING_UNSUPPORTED', 'Tokens behind this cache cannot be masked.', {
          expected: 'tokens without an attention mask; rows may differ in length',
          found: 'a mask with zeros',
        });
      }
      return this.#forwardInPlace((await this.inPlaceSteps())!, request, cache);
    }
    // Without a cache before and behind it a step gains nothing.
    if (cache === undefined && !masked && request.returnCache !== false) {
      const steps = await this.inPlaceSteps();
      if (steps !== undefined) return this.#forwardInPlace(steps, request, undefined);
    }
    return this.#forwardKept(request, ids, mask, cache as KeptCache | undefined);
  }

  dispose(): Promise<void> {
    return this.session.dispose();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }

  /** Single runs over rows of in-place caches, for who schedules several sequences; `undefined` where there are none. */
  inPlaceSteps(): Promise<InPlaceSteps | undefined> {
    this.#inPlace ??= this.#proveInPlace();
    return this.#inPlace;
  }

  async #proveInPlace(): Promise<InPlaceSteps | undefined> {
    const keyValues = await InPlaceKeyValues.prove(this.session, this.signature);
    return keyValues === undefined ? undefined : new InPlaceSteps(keyValues, this.signature);
  }

  async #forwardInPlace(
    steps: InPlaceSteps,
    request: ForwardRequest,
    cache: InPlaceCache | undefined,
  ): Promise<ForwardResult> {
    const result = await steps.step({
      ids: request.inputIds,
      cache,
      keepLast: request.keep === 'last',
      outputs: request.outputs ?? [],
      advance: request.returnCache !== false,
      capacity: request.capacity,
      into: request.into,
      signal: request.signal,
    });
    return { ...result, cache: result.cache ?? new KeptCache(this.signature.cache, [], {}) };
  }

  async #forwardKept(
    request: ForwardRequest,
    ids: readonly (readonly number[])[],
    newMask: readonly (readonly number[])[],
    before: KeptCache | undefined,
  ): Promise<ForwardResult> {
    const { signature } = this;
    const mask = newMask.map((row, i) => [...(before?.mask[i] ?? []), ...row]);
    if (signature.attentionMask === undefined && mask.some((row) => row.includes(0))) {
      throw new InferenceError(
        'PADDING_UNSUPPORTED',
        'The model takes no attention mask, so it cannot be padded.',
        {
          expected: 'sequences of one length',
          found: 'padding',
          hint: 'Run the sequences one by one.',
        },
      );
    }
    const keepLast = request.keep === 'last';
    const past = before?.kept;
    const feeds = decoderFeeds(signature, { ids, mask, keepLast, ...(past === undefined ? {} : { past }) });
    const extra = request.outputs ?? [];
    const wanted = request.returnCache === false ? [] : signature.cache;
    const names = [signature.logits, ...wanted.map((pair) => pair.present), ...extra];
    const { signal } = request;
    const results = await this.session.run(
      feeds,
      [...new Set(names)],
      signal === undefined ? {} : { signal },
    );
    const tensors = Object.fromEntries(wanted.map((pair) => [pair.past.name, results[pair.present]!]));
    return {
      logits: logitsOf(results[signature.logits]!, signature.logits, keepLast),
      cache: new KeptCache(signature.cache, mask, tensors),
      outputs: Object.fromEntries(extra.map((name) => [name, results[name]!])),
    };
  }
}

function batchOf(cache: DecoderCache): number {
  return cache instanceof InPlaceCache ? cache.lengths.length : cache.mask.length;
}

function logitsOf(tensor: TensorValue, name: string, keepLast: boolean): Logits {
  const data = asFloat32(tensor, name);
  const [batch, count, vocabulary] = logitsShape(tensor);
  if (!keepLast || count === 1) return { dims: [batch, count, vocabulary], data };
  const last = new Float32Array(batch * vocabulary);
  for (let row = 0; row < batch; row++) {
    const end = (row + 1) * count * vocabulary;
    last.set(data.subarray(end - vocabulary, end), row * vocabulary);
  }
  return { dims: [batch, 1, vocabulary], data: last };
}

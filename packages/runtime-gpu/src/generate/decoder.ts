import { InferenceError } from '../errors.js';
import { openSession } from '../session/open.js';
import type { Session, SessionOptions } from '../session/types.js';
import { asFloat32 } from '../tensor/make.js';
import type { TensorValue } from '../tensor/types.js';
import { padLeft } from './batch.js';
import { decoderFeeds } from './feeds.js';
import { type DecoderSignature, decoderSignature } from './signature.js';

/** Keys and values of the tokens so far. Never changed by a later step: a step gives back a new one. */
export interface DecoderCache {
  /** Positions in the cache, padding included. */
  readonly length: number;
  /** `[batch, length]`, 0 at padding. */
  readonly mask: readonly (readonly number[])[];
  /** By the name of the input that takes each. */
  readonly tensors: Readonly<Record<string, TensorValue>>;
}

export interface ForwardRequest {
  /** The new tokens of each sequence; sequences of different length are padded on the left. */
  readonly inputIds: readonly (readonly number[])[];
  /** For ids that are padded already: `[batch, seq]`, 0 at padding. */
  readonly attentionMask?: readonly (readonly number[])[];
  /** What an earlier step of the same sequences gave back. */
  readonly cache?: DecoderCache;
  /** `last`: logits of the last position only. `all` when absent. */
  readonly keep?: 'all' | 'last';
  /** `false` leaves the new cache out of the result and saves copying it. */
  readonly returnCache?: boolean;
  /** Further outputs of the graph to hand out. */
  readonly outputs?: readonly string[];
}

export interface Logits {
  readonly dims: readonly [batch: number, positions: number, vocabulary: number];
  /** `[batch, positions, vocabulary]`, row-major. */
  readonly data: Float32Array;
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
   * @throws InferenceError `TOKENS_INVALID`, `CACHE_MISMATCH` (a cache of another batch),
   *   `PADDING_UNSUPPORTED` (the graph has no attention mask), and what `Session.run` throws.
   */
  async forward(request: ForwardRequest): Promise<ForwardResult> {
    const { signature } = this;
    const { ids, mask } = padLeft(request.inputIds, request.attentionMask);
    const batch = ids.length;
    const before = request.cache;
    if (before !== undefined && before.mask.length !== batch) {
      throw new InferenceError('CACHE_MISMATCH', 'The cache belongs to another batch.', {
        expected: `${before.mask.length} sequences`,
        found: `${batch} sequences`,
      });
    }
    const fullMask = mask.map((row, i) => [...(before?.mask[i] ?? []), ...row]);
    if (signature.attentionMask === undefined && fullMask.some((row) => row.includes(0))) {
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
    const feeds = decoderFeeds(signature, {
      ids,
      mask: fullMask,
      keepLast,
      ...(before === undefined ? {} : { past: before.tensors }),
    });
    const wantCache = request.returnCache !== false;
    const extra = request.outputs ?? [];
    const presents = wantCache ? signature.cache.map((pair) => pair.present) : [];
    const results = await this.session.run(feeds, [...new Set([signature.logits, ...presents, ...extra])]);
    const tensors = wantCache
      ? Object.fromEntries(signature.cache.map((pair) => [pair.past.name, results[pair.present]!]))
      : {};
    return {
      logits: logitsOf(results[signature.logits]!, signature.logits, keepLast),
      cache: { length: fullMask[0]!.length, mask: fullMask, tensors },
      outputs: Object.fromEntries(extra.map((name) => [name, results[name]!])),
    };
  }

  dispose(): Promise<void> {
    return this.session.dispose();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }
}

function logitsOf(tensor: TensorValue, name: string, keepLast: boolean): Logits {
  const data = asFloat32(tensor, name);
  if (tensor.dims.length !== 3) {
    throw new InferenceError('NOT_A_DECODER', 'The logits have an unexpected shape.', {
      expected: '[batch, positions, vocabulary]',
      found: `[${tensor.dims.join(', ')}]`,
    });
  }
  const [batch, count, vocabulary] = tensor.dims as [number, number, number];
  if (!keepLast || count === 1) return { dims: [batch, count, vocabulary], data };
  const last = new Float32Array(batch * vocabulary);
  for (let row = 0; row < batch; row++) {
    const end = (row + 1) * count * vocabulary;
    last.set(data.subarray(end - vocabulary, end), row * vocabulary);
  }
  return { dims: [batch, 1, vocabulary], data: last };
}

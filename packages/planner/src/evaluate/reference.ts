import { UsageError } from '@cqil/core';
import type { DecoderSession } from '@cqil/runtime-gpu';
import { type SparseDistribution, sparse, sparseDivergence, summariseRow } from './log-probabilities.js';

/** What can be measured: a `DecoderSession`, or what runs like one. */
export type Predictor = Pick<DecoderSession, 'forward'>;

/** What a model predicts at the tokens of one window but the first, `window − 1` positions. */
export interface Predictions {
  /** −ln p of the token that is there, nats. */
  readonly losses: Float64Array;
  /** The most probable token. */
  readonly best: Uint32Array;
}

/** Predictions of a candidate beside the reference's, and how far they are from them. */
export interface ComparedPredictions extends Predictions {
  readonly reference: Predictions;
  /** KL(reference ‖ candidate) at each position, nats. */
  readonly divergences: Float64Array;
}

interface KeptPredictions extends Predictions {
  readonly vocabulary: number;
  readonly distributions: readonly SparseDistribution[];
}

export interface ReferenceOptions {
  /**
   * The most memory for distributions, in bytes; 768 MiB when absent. Windows beyond are run anew each time. With a
   * vocabulary of 49,000 a token takes about 80 KB.
   */
  readonly maxBytes?: number;
}

/**
 * Probability that a kept distribution may leave out. The divergence comes out too small by at most this times
 * the divergence among what is left out: while that is less than twice the whole, by less than one in a thousand
 * (measured on SmolLM2 with perturbed logits: 4 in 10,000).
 */
const LEFT_OUT = 5e-4;

/**
 * A model that others are compared with. It runs once over every window; losses, best tokens and the probable
 * part of every distribution stay in memory, so that comparing many candidates costs one run of each.
 *
 * Windows are known again by identity: the arrays of a `TextSet` must not be changed.
 */
export class Reference {
  readonly #original: Predictor;
  readonly #maxBytes: number;
  readonly #kept = new Map<readonly number[], KeptPredictions>();
  #bytes = 0;

  constructor(original: Predictor, options: ReferenceOptions = {}) {
    this.#original = original;
    this.#maxBytes = options.maxBytes ?? 768 * 1024 * 1024;
  }

  /** Memory that the kept distributions take. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Forgets everything that is kept. */
  clear(): void {
    this.#kept.clear();
    this.#bytes = 0;
  }

  /** @throws what `DecoderSession.forward` throws */
  async predictions(ids: readonly number[]): Promise<Predictions> {
    return this.#of(ids);
  }

  /**
   * Runs a candidate over a window and compares it with the reference at every position.
   *
   * @throws UsageError `VOCABULARY_MISMATCH`; what `DecoderSession.forward` throws
   */
  async compare(candidate: Predictor, ids: readonly number[]): Promise<ComparedPredictions> {
    const kept = await this.#of(ids);
    const logits = await logitsOf(candidate, ids);
    const size = logits.length / ids.length;
    if (size !== kept.vocabulary) {
      throw new UsageError('VOCABULARY_MISMATCH', 'The two models do not predict the same tokens.', {
        expected: `${kept.vocabulary} logits a position`,
        found: `${size}`,
        hint: 'Compare a model with its own rewritten form.',
      });
    }
    const count = ids.length - 1;
    const losses = new Float64Array(count);
    const best = new Uint32Array(count);
    const divergences = new Float64Array(count);
    for (let i = 0; i < count; i++) {
      const row = summariseRow(logits, i * size, size);
      losses[i] = row.logSumExp - logits[i * size + ids[i + 1]!]!;
      best[i] = row.best;
      divergences[i] = sparseDivergence(kept.distributions[i]!, logits, i * size, row.logSumExp);
    }
    return { reference: kept, losses, best, divergences };
  }

  async #of(ids: readonly number[]): Promise<KeptPredictions> {
    const known = this.#kept.get(ids);
    if (known !== undefined) return known;
    const logits = await logitsOf(this.#original, ids);
    const size = logits.length / ids.length;
    const count = ids.length - 1;
    const losses = new Float64Array(count);
    const best = new Uint32Array(count);
    const distributions: SparseDistribution[] = [];
    let bytes = 0;
    for (let i = 0; i < count; i++) {
      const row = summariseRow(logits, i * size, size);
      losses[i] = row.logSumExp - logits[i * size + ids[i + 1]!]!;
      best[i] = row.best;
      const distribution = sparse(logits, i * size, size, row.logSumExp, LEFT_OUT);
      distributions.push(distribution);
      bytes += distribution.ids.byteLength + distribution.logs.byteLength;
    }
    const predictions = { losses, best, vocabulary: size, distributions };
    if (this.#bytes + bytes <= this.#maxBytes) {
      this.#kept.set(ids, predictions);
      this.#bytes += bytes;
    }
    return predictions;
  }
}

/** Logits `[seq, vocabulary]`, row-major. */
async function logitsOf(model: Predictor, ids: readonly number[]): Promise<Float32Array> {
  const { logits } = await model.forward({ inputIds: [ids], returnCache: false });
  return logits.data;
}

import type { DecoderCache, DecoderSession } from './decoder.js';
import { seededRandom } from './random.js';
import { checkSampling, type SamplingOptions, sample } from './sampling.js';

export interface GenerateOptions extends SamplingOptions {
  readonly promptIds: readonly number[];
  /** The most tokens to generate, the end token counted. */
  readonly maxTokens: number;
  /** Tokens that end the text. */
  readonly eosIds?: readonly number[];
  /** Makes sampling repeatable; 0 when absent. */
  readonly seed?: number;
  /** Called with every new token as soon as it is chosen, an end token included. */
  readonly onToken?: (id: number) => void;
  readonly signal?: AbortSignal;
}

export interface Generation {
  /** The new tokens, an end token included. */
  readonly ids: number[];
  /** `stop`: an end token came. `length`: `maxTokens` were generated. */
  readonly finishReason: 'stop' | 'length';
}

/**
 * Continues a prompt, greedily or by sampling.
 *
 * @throws the signal's reason when aborted, after at most one step of the model; InferenceError
 *   `SAMPLING_INVALID` and what `DecoderSession.forward` throws.
 */
export async function generate(decoder: DecoderSession, options: GenerateOptions): Promise<Generation> {
  checkSampling(options);
  const { signal, maxTokens } = options;
  const ends = new Set(options.eosIds ?? []);
  const random = seededRandom(options.seed ?? 0);
  const ids: number[] = [];
  let next: readonly number[] = options.promptIds;
  let cache: DecoderCache | undefined;
  while (ids.length < maxTokens) {
    signal?.throwIfAborted();
    const step = await decoder.forward({
      inputIds: [next],
      keep: 'last',
      ...(cache === undefined ? {} : { cache }),
    });
    signal?.throwIfAborted();
    cache = step.cache;
    const id = sample(step.logits.data, options, random);
    ids.push(id);
    options.onToken?.(id);
    if (ends.has(id)) return { ids, finishReason: 'stop' };
    next = [id];
  }
  return { ids, finishReason: 'length' };
}

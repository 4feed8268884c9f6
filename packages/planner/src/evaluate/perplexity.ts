import type { OnProgress } from '@cqil/core';
import type { DecoderSession } from '@cqil/runtime-gpu';
import { type Interval, meanInterval } from './bootstrap.js';
import { logSumExp } from './distribution.js';
import { scoredTokens, type Window, type WindowOptions, windows } from './windows.js';

export interface EvaluationOptions extends WindowOptions {
  readonly signal?: AbortSignal;
  readonly onProgress?: OnProgress;
}

export interface Perplexity {
  /** exp of the mean negative log-likelihood of the predicted tokens. */
  readonly perplexity: number;
  /** Mean negative log-likelihood, nats a token. */
  readonly nll: number;
  /** 95 % interval of the perplexity; absent for short texts. */
  readonly interval?: Interval;
  /** Tokens that were predicted. */
  readonly tokens: number;
}

/**
 * Perplexity of a text: exp of the mean negative log-likelihood of each token given those before it in its
 * window. The first token of a text is not predicted, so n tokens in one window give n − 1 predictions.
 *
 * Holds the logits of one window at a time; sums are float64.
 *
 * @throws UsageError from `windows`; what `DecoderSession.forward` throws; the signal's reason
 */
export async function perplexity(
  decoder: DecoderSession,
  ids: readonly number[],
  options: EvaluationOptions = {},
): Promise<Perplexity> {
  const list = windows(ids, options);
  const total = scoredTokens(list);
  const losses = new Float64Array(total);
  let done = 0;
  for (const window of list) {
    options.signal?.throwIfAborted();
    const logits = await windowLogits(decoder, window);
    done = scoreWindow(window, logits, losses, done);
    options.onProgress?.({ phase: 'measuring perplexity', done, total, unit: 'tokens' });
  }
  return summarise(losses);
}

/** Logits `[seq, vocabulary]` of a window, row-major. */
export async function windowLogits(decoder: DecoderSession, window: Window): Promise<Float32Array> {
  const { logits } = await decoder.forward({ inputIds: [window.ids], returnCache: false });
  return logits.data;
}

/** Writes −ln p of each token that counts to `losses` from `at`; gives the next free place. */
export function scoreWindow(window: Window, logits: Float32Array, losses: Float64Array, at: number): number {
  const size = logits.length / window.ids.length;
  let next = at;
  for (let i = window.scoreFrom; i < window.ids.length; i++) {
    const row = (i - 1) * size;
    losses[next++] = logSumExp(logits, row, size) - logits[row + window.ids[i]!]!;
  }
  return next;
}

export function summarise(losses: Float64Array): Perplexity {
  const nll = losses.reduce((sum, loss) => sum + loss, 0) / losses.length;
  const interval = meanInterval(losses);
  return {
    perplexity: Math.exp(nll),
    nll,
    ...(interval === undefined
      ? {}
      : { interval: { low: Math.exp(interval.low), high: Math.exp(interval.high) } }),
    tokens: losses.length,
  };
}

import { UsageError } from '@cqil/core';
import type { DecoderSession } from '@cqil/runtime-gpu';
import { type Interval, meanInterval } from './bootstrap.js';
import { best, klDivergence } from './distribution.js';
import {
  type EvaluationOptions,
  type Perplexity,
  scoreWindow,
  summarise,
  windowLogits,
} from './perplexity.js';
import { scoredTokens, windows } from './windows.js';

/** Closer than this, two best tokens can change places between kernels of different shapes. */
export const NEAR_TIE = 1e-3;

/** How a model `b` differs from a model `a` on a text. */
export interface Comparison {
  /** Positions compared. */
  readonly tokens: number;
  /** Mean KL(a ‖ b), nats a token. */
  readonly kl: number;
  readonly klInterval?: Interval;
  /** Share of positions where both have the same best token, in [0, 1]. */
  readonly top1Agreement: number;
  /** Positions where the best tokens differ but the two best of `a` are less than `NEAR_TIE` apart. */
  readonly nearTies: number;
  readonly a: Perplexity;
  readonly b: Perplexity;
  /** Perplexity of `b` over that of `a`, with the 95 % interval of the paired difference. */
  readonly ratio: number;
  readonly ratioInterval?: Interval;
}

/**
 * Runs two models over the same text and compares what they predict at every token that counts.
 *
 * Holds the logits of one window of each at a time; sums are float64.
 *
 * @throws UsageError `VOCABULARY_MISMATCH`, and from `windows`; what `DecoderSession.forward` throws; the
 *   signal's reason
 */
export async function compare(
  a: DecoderSession,
  b: DecoderSession,
  ids: readonly number[],
  options: EvaluationOptions = {},
): Promise<Comparison> {
  const list = windows(ids, options);
  const total = scoredTokens(list);
  const lossesA = new Float64Array(total);
  const lossesB = new Float64Array(total);
  const divergences = new Float64Array(total);
  let agreed = 0;
  let nearTies = 0;
  let done = 0;
  for (const window of list) {
    options.signal?.throwIfAborted();
    const logitsA = await windowLogits(a, window);
    options.signal?.throwIfAborted();
    const logitsB = await windowLogits(b, window);
    if (logitsA.length !== logitsB.length) throw vocabularies(window.ids.length, logitsA, logitsB);
    const size = logitsA.length / window.ids.length;
    scoreWindow(window, logitsA, lossesA, done);
    scoreWindow(window, logitsB, lossesB, done);
    for (let i = window.scoreFrom; i < window.ids.length; i++) {
      const row = (i - 1) * size;
      divergences[done++] = klDivergence(logitsA, logitsB, row, size);
      const { index, margin } = best(logitsA, row, size);
      if (index === best(logitsB, row, size).index) agreed += 1;
      else if (margin < NEAR_TIE) nearTies += 1;
    }
    options.onProgress?.({ phase: 'comparing predictions', done, total, unit: 'tokens' });
  }
  const before = summarise(lossesA);
  const after = summarise(lossesB);
  const klInterval = meanInterval(divergences);
  const paired = meanInterval(lossesB.map((loss, i) => loss - lossesA[i]!));
  return {
    tokens: total,
    kl: divergences.reduce((sum, value) => sum + value, 0) / total,
    ...(klInterval === undefined ? {} : { klInterval }),
    top1Agreement: agreed / total,
    nearTies,
    a: before,
    b: after,
    ratio: Math.exp(after.nll - before.nll),
    ...(paired === undefined
      ? {}
      : { ratioInterval: { low: Math.exp(paired.low), high: Math.exp(paired.high) } }),
  };
}

function vocabularies(count: number, a: Float32Array, b: Float32Array): UsageError {
  return new UsageError('VOCABULARY_MISMATCH', 'The two models do not predict the same tokens.', {
    expected: `${a.length / count} logits a position`,
    found: `${b.length / count}`,
    hint: 'Compare a model with its own rewritten form.',
  });
}

import type { OnProgress } from '@cqil/core';
import type { KindResult } from '../optimize/document.js';
import { meanInterval } from './bootstrap.js';
import { summarise } from './perplexity.js';
import { type Predictor, Reference } from './reference.js';
import type { TextSet } from './text-sets.js';

export interface EvaluateKindsOptions {
  readonly signal?: AbortSignal;
  readonly onProgress?: OnProgress;
}

/** A model by kinds of text, as a row of the report has it. */
export interface KindsEvaluation {
  /** In the order of the set's kinds. */
  readonly kinds: KindResult[];
  /** Geometric mean over the kinds of perplexity over the original's, minus 1: each kind counts the same. */
  readonly excess: number;
  /** Mean over the kinds of KL(original ‖ this), nats a token. */
  readonly kl: number;
}

/** Measurements of one window, `window − 1` positions each. */
interface Measured {
  /** Losses of the original and of the model, nats. */
  readonly before: Float64Array;
  readonly after: Float64Array;
  readonly divergences: Float64Array;
  readonly agreed: number;
}

/**
 * Measures by kind how a candidate differs from the original on a set of text: what `compare` gives on the
 * windows of the kind, but that KL can be too small by one in a thousand (see `Reference`).
 *
 * @param original a `Reference` where several candidates are measured: then the original runs once
 * @throws UsageError `VOCABULARY_MISMATCH`; what `DecoderSession.forward` throws; the signal's reason
 */
export async function evaluateKinds(
  original: Predictor | Reference,
  candidate: Predictor,
  set: Pick<TextSet, 'kinds' | 'window'>,
  options: EvaluateKindsOptions = {},
): Promise<KindsEvaluation> {
  const reference = referenceOf(original);
  return overKinds(set, options, async (ids) => {
    const { reference: before, losses, best, divergences } = await reference.compare(candidate, ids);
    const agreed = best.reduce((sum, id, i) => (id === before.best[i] ? sum + 1 : sum), 0);
    return { before: before.losses, after: losses, divergences, agreed };
  });
}

/**
 * The original's own row: its perplexity by kind, no excess, no divergence.
 *
 * @throws what `DecoderSession.forward` throws; the signal's reason
 */
export async function evaluateOriginal(
  original: Predictor | Reference,
  set: Pick<TextSet, 'kinds' | 'window'>,
  options: EvaluateKindsOptions = {},
): Promise<KindsEvaluation> {
  const reference = referenceOf(original);
  return overKinds(set, options, async (ids) => {
    const { losses } = await reference.predictions(ids);
    const divergences = new Float64Array(losses.length);
    return { before: losses, after: losses, divergences, agreed: losses.length };
  });
}

function referenceOf(original: Predictor | Reference): Reference {
  // Nothing is kept of an original that is measured against once.
  return original instanceof Reference ? original : new Reference(original, { maxBytes: 0 });
}

async function overKinds(
  set: Pick<TextSet, 'kinds' | 'window'>,
  options: EvaluateKindsOptions,
  measure: (ids: readonly number[]) => Promise<Measured>,
): Promise<KindsEvaluation> {
  const total = set.kinds.reduce((sum, { windows }) => sum + windows.length * (set.window - 1), 0);
  let done = 0;
  const kinds: KindResult[] = [];
  for (const { kind, windows } of set.kinds) {
    const measured: Measured[] = [];
    for (const ids of windows) {
      options.signal?.throwIfAborted();
      measured.push(await measure(ids));
      done += ids.length - 1;
      options.onProgress?.({ phase: 'measuring quality', done, total, unit: 'tokens' });
    }
    kinds.push(kindResult(kind, measured));
  }
  const mean = (of: (kind: KindResult) => number) =>
    kinds.reduce((sum, kind) => sum + of(kind), 0) / kinds.length;
  return { kinds, excess: Math.expm1(mean((kind) => Math.log1p(kind.excess))), kl: mean((kind) => kind.kl) };
}

function kindResult(kind: string, measured: readonly Measured[]): KindResult {
  const series = (of: (one: Measured) => Float64Array) =>
    Float64Array.from(measured.flatMap((one) => [...of(one)]));
  const before = series((one) => one.before);
  const after = series((one) => one.after);
  const divergences = series((one) => one.divergences);
  const tokens = after.length;
  const { perplexity, nll, interval } = summarise(after);
  const paired = meanInterval(after.map((loss, i) => loss - before[i]!));
  const klInterval = meanInterval(divergences);
  return {
    kind,
    tokens,
    perplexity,
    ...(interval === undefined ? {} : { interval: { ...interval } }),
    excess: Math.expm1(nll - summarise(before).nll),
    ...(paired === undefined
      ? {}
      : { excessInterval: { low: Math.expm1(paired.low), high: Math.expm1(paired.high) } }),
    kl: divergences.reduce((sum, value) => sum + value, 0) / tokens,
    ...(klInterval === undefined ? {} : { klInterval: { ...klInterval } }),
    top1: measured.reduce((sum, { agreed }) => sum + agreed, 0) / tokens,
  };
}

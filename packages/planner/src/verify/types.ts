import type { Plan } from '@cqil/core';
import type { Comparison } from '../evaluate/index.js';
import type { RefittedMap } from '../recover/metadata.js';
import type { Arithmetic } from './tolerance.js';

/**
 * - `structure`: the rules of the ONNX specification
 * - `plan`: there is one, and it is for this original
 * - `shapes`: inputs and outputs are those of the original
 * - `recovery`: what is declared as refitted is one matrix each in the place of one of the original's, and nothing else
 *   is refitted; only for models that recovery changed
 * - `weights`: all others are those of the original
 * - `wide`: the matrices of wide layers are those of their members, up to rounding; only for models with such layers
 * - `parity.…`: the same numbers as the method's formulas on the original's parts, refitted matrices put in: a prompt at once, token by token
 *   with the cache, several sequences of one length, of different length with padding, a real text
 * - `quality`: perplexity, KL divergence and top-1 agreement with the original on a text; it informs
 */
export type CheckName =
  | 'structure'
  | 'plan'
  | 'shapes'
  | 'recovery'
  | 'weights'
  | 'wide'
  | 'parity'
  | 'parity.prefill'
  | 'parity.decode'
  | 'parity.batch'
  | 'parity.padded'
  | 'parity.text'
  | 'quality';

export type CheckStatus = 'passed' | 'failed' | 'skipped';

/** One thing that was looked at. All fields are JSON. */
export interface VerifyCheck {
  readonly name: CheckName;
  readonly status: CheckStatus;
  /** Not failed. */
  readonly ok: boolean;
  /** What was found, a sentence for people. */
  readonly detail: string;
  /** For programs: why it failed or was left out. */
  readonly code?: string;
  /** Largest distance of two logits; `null` where one of them is no number. */
  readonly maxAbsError?: number | null;
  /** What `maxAbsError` was held against. */
  readonly tolerance?: number;
  /** Largest distance in the caches, over each tensor's root mean square (at least 1); `null` as above. */
  readonly cacheError?: number | null;
  /** What `cacheError` was held against. */
  readonly cacheTolerance?: number;
  /** Positions whose logits were compared. */
  readonly positions?: number;
  /** Positions with another best token, near ties apart. */
  readonly argmaxDifferences?: number;
  /** Positions with another best token whose two best logits are closer than the tolerance. */
  readonly nearTies?: number;
  /** How far the plan moves the logits from the original's: what an error is to be seen against. */
  readonly planEffect?: number | null;
  /** Where rounding had to be measured: how far the original in parts is from the original as a whole. */
  readonly noise?: number;
}

/** What `verify` found. All fields are JSON. */
export interface VerifyReport {
  /** No check failed. */
  readonly ok: boolean;
  readonly original: string;
  readonly rewritten: string;
  /** The plan the rewritten model was held to, where there was one. */
  readonly plan?: Plan;
  /** The maps whose matrices recovery refitted, where it did and they could be checked. */
  readonly refitted?: readonly RefittedMap[];
  readonly arithmetic: Arithmetic;
  readonly checks: readonly VerifyCheck[];
  /** Where `quality` was measured: `a` is the original, `b` the rewritten model. */
  readonly quality?: Comparison;
}

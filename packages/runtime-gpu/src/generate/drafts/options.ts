import { canRewind, type StepModel } from '../../decoder/step-model.js';
import { InferenceError } from '../../errors.js';
import type { PrefixCache } from '../prefix-cache.js';
import { requireOption } from '../sampling.js';

/** Drafting tokens and checking several in one pass. What is generated stays the same; it may come sooner. */
export interface SpeculateOptions {
  /** `prompt`: what followed the same tokens before, in prompt or answer. A model: a smaller one, same tokenizer. */
  readonly drafter: 'prompt' | StepModel;
  /** The most tokens of a draft, from 1 to 64; 16 when absent, 8 with a model. */
  readonly maxDraft?: number;
  /** For drafts from the prompt: the longest match that is looked for, from 1 to 16 tokens; 3 when absent. */
  readonly ngram?: number;
  /** For a model: keeps its cache between generations. */
  readonly cache?: PrefixCache;
  /**
   * For a model that has a device of its own (other processors; the native binding): it drafts while the model
   * computes, and passes check what is ready when they begin. Seeds give what they give without drafts, since drafts are
   * then the drafter's likeliest tokens. With `adapt` drafting goes on only while it gives more tokens in the same time.
   */
  readonly asynchronous?: boolean;
  /**
   * `false`: drafts always, and as long as `maxDraft` allows. Otherwise by what passes take and how often drafts are
   * right: nothing is drafted where that would not pay, and now and then it is tried again. Where a model drafts by
   * draws of a given `seed`, fixed costs stand for the times, so that the seed repeats.
   */
  readonly adapt?: boolean;
  /** Milliseconds; the process's clock when absent. */
  readonly clock?: () => number;
}

/** @throws InferenceError `SAMPLING_INVALID`; `SPECULATION_UNSUPPORTED` for a model whose cache cannot go back. */
export function checkSpeculation(
  model: StepModel,
  { drafter, maxDraft, ngram, asynchronous }: SpeculateOptions,
): void {
  const within = (most: number) => (value: number) => Number.isInteger(value) && value >= 1 && value <= most;
  requireOption('speculate.maxDraft', maxDraft, 'a whole number from 1 to 64', within(64));
  requireOption('speculate.ngram', ngram, 'a whole number from 1 to 16', within(16));
  requireOption(
    'speculate.asynchronous',
    asynchronous,
    'a model as the drafter',
    (value) => !value || drafter !== 'prompt',
  );
  if (canRewind(model) && (drafter === 'prompt' || canRewind(drafter))) return;
  throw new InferenceError('SPECULATION_UNSUPPORTED', 'The model cannot take back tokens that it has read.', {
    expected: 'a cache that grows with the tokens',
    found: 'states of a fixed size',
    hint: 'leave out the option `speculate`',
  });
}

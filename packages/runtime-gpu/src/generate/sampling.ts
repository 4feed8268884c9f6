import { InferenceError } from '../errors.js';
import { argmax } from './argmax.js';
import { draw, tokenDistribution } from './distribution.js';

/**
 * How the next token is chosen from the model's logits. The changes come in this order: what a constraint
 * forbids; repetition penalty; presence and frequency penalty and logit bias, which are added; temperature; top-k;
 * top-p of what top-k left; min-p. From temperature on that is the order of Transformers.
 */
export interface SamplingOptions {
  /** 0 takes the most likely token; 1 samples from the model's own distribution. 0 when absent. */
  readonly temperature?: number;
  /** Samples only from this many of the most likely tokens. */
  readonly topK?: number;
  /**
   * Samples only from the smallest set of tokens whose probabilities sum to this (nucleus sampling, Holtzman et
   * al., arXiv 1904.09751).
   */
  readonly topP?: number;
  /** Samples only tokens that are at least this times as likely as the most likely (arXiv 2407.01082). */
  readonly minP?: number;
  /**
   * Logits of tokens in the prompt or the answer are divided by this where positive and multiplied where
   * negative, once for each token (Keskar et al., arXiv 1909.05858; as in Transformers). 1: no change.
   */
  readonly repetitionPenalty?: number;
  /** Taken from the logit of each token that the answer has, as OpenAI's API has it; from -2 to 2. */
  readonly presencePenalty?: number;
  /** Taken from the logit of a token once for each time the answer has it; from -2 to 2. */
  readonly frequencyPenalty?: number;
  /** Added to the logit of each of these tokens, from -100 to 100; -100 bans a token altogether. */
  readonly logitBias?: ReadonlyMap<number, number>;
}

/** @throws InferenceError `SAMPLING_INVALID` naming the option that makes no sense. */
export function checkSampling(options: SamplingOptions): void {
  const { temperature, topK, topP, minP, repetitionPenalty, logitBias } = options;
  const finite = Number.isFinite;
  requireOption('temperature', temperature, '0 or more', (value) => value >= 0 && finite(value));
  requireOption(
    'topK',
    topK,
    'a whole number of 1 or more',
    (value) => Number.isInteger(value) && value >= 1,
  );
  requireOption('topP', topP, 'more than 0, at most 1', (value) => value > 0 && value <= 1);
  requireOption('minP', minP, 'from 0 to 1', (value) => value >= 0 && value <= 1);
  requireOption('repetitionPenalty', repetitionPenalty, 'more than 0', (value) => value > 0 && finite(value));
  for (const name of ['presencePenalty', 'frequencyPenalty'] as const) {
    requireOption(name, options[name], 'from -2 to 2', (value) => value >= -2 && value <= 2);
  }
  for (const [id, bias] of logitBias ?? []) {
    requireOption('logitBias', id, 'token ids as keys', (value) => Number.isSafeInteger(value) && value >= 0);
    requireOption('logitBias', bias, 'from -100 to 100', (value) => value >= -100 && value <= 100);
  }
}

/** @throws InferenceError `SAMPLING_INVALID` where the option is given and does not hold. */
export function requireOption<Value extends boolean | number>(
  name: string,
  value: Value | undefined,
  expected: string,
  holds: (value: Value) => boolean,
): void {
  if (value === undefined || holds(value)) return;
  throw new InferenceError('SAMPLING_INVALID', `The option "${name}" makes no sense.`, {
    expected,
    found: String(value),
  });
}

/**
 * Draws the next token by temperature, top-k, top-p and min-p. Penalties and bias need what went before: `generate`
 * applies them.
 *
 * @param logits `[vocabulary]`
 * @param random numbers in [0, 1)
 * @throws InferenceError `NO_TOKEN_LEFT` when no logit is a number
 */
export function sample(logits: Float32Array, options: SamplingOptions, random: () => number): number {
  if ((options.temperature ?? 0) === 0) return argmax(logits);
  return draw(tokenDistribution(logits, options), random);
}

export { argmax };

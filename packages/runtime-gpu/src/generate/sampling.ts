import { InferenceError } from '../errors.js';

export interface SamplingOptions {
  /** 0 takes the most likely token; 1 samples from the model's own distribution. 0 when absent. */
  readonly temperature?: number;
  /** Samples only from the smallest set of tokens whose probabilities sum to this (nucleus sampling). */
  readonly topP?: number;
  /** Samples only from this many of the most likely tokens. */
  readonly topK?: number;
}

/** The index of the largest value, the first of equals; NaN never wins. */
export function argmax(values: Float32Array): number {
  let best = 0;
  let bestValue = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < values.length; i++) {
    if (values[i]! > bestValue) {
      best = i;
      bestValue = values[i]!;
    }
  }
  return best;
}

/** @throws InferenceError `SAMPLING_INVALID` naming the option that makes no sense. */
export function checkSampling(options: SamplingOptions): void {
  const { temperature = 0, topP = 1, topK = 1 } = options;
  const refuse = (option: string, expected: string, found: number): never => {
    throw new InferenceError('SAMPLING_INVALID', `The sampling option "${option}" makes no sense.`, {
      expected,
      found: String(found),
    });
  };
  if (!(temperature >= 0 && Number.isFinite(temperature))) refuse('temperature', '0 or more', temperature);
  if (!(topP > 0 && topP <= 1)) refuse('topP', 'more than 0, at most 1', topP);
  if (!(Number.isInteger(topK) && topK >= 1)) refuse('topK', 'a whole number of 1 or more', topK);
}

/**
 * Draws the next token.
 *
 * @param logits `[vocabulary]`
 * @param random numbers in [0, 1)
 */
export function sample(logits: Float32Array, options: SamplingOptions, random: () => number): number {
  const { temperature = 0, topP = 1, topK } = options;
  if (temperature === 0) return argmax(logits);
  const top = logits[argmax(logits)]!;
  const weights = new Float64Array(logits.length);
  let total = 0;
  for (let i = 0; i < logits.length; i++) {
    const weight = Math.exp((logits[i]! - top) / temperature);
    weights[i] = Number.isNaN(weight) ? 0 : weight;
    total += weights[i]!;
  }
  if (topP === 1 && topK === undefined) return pick(weights, undefined, total, random);

  // Only tokens that can be in the nucleus are sorted: the rest has weights too small to matter.
  const order = Array.from(weights.keys()).filter((i) => weights[i]! > 1e-12);
  order.sort((a, b) => weights[b]! - weights[a]! || a - b);
  const kept: number[] = [];
  let mass = 0;
  for (const id of order) {
    kept.push(id);
    mass += weights[id]!;
    if (mass >= topP * total || kept.length === topK) break;
  }
  return pick(weights, kept, mass, random);
}

function pick(
  weights: Float64Array,
  ids: readonly number[] | undefined,
  mass: number,
  random: () => number,
): number {
  let left = random() * mass;
  const count = ids?.length ?? weights.length;
  let last = 0;
  for (let i = 0; i < count; i++) {
    const id = ids === undefined ? i : ids[i]!;
    if (weights[id] === 0) continue;
    left -= weights[id]!;
    last = id;
    if (left < 0) break;
  }
  return last;
}

import type { SamplingOptions } from './sampling.js';
import { scratchFor } from './scratch.js';
import type { TokenHistory } from './token-history.js';

/** Says which tokens may come next, for answers that must follow a grammar. */
export interface TokenConstraint {
  /**
   * The tokens that may come next: bit `id % 32` of word `id >> 5`; tokens past its end may not come.
   * `undefined`: every token may.
   */
  allowed(): Uint32Array | undefined;
  /** Called with every token that was chosen, an end token included, in order. */
  accept(id: number): void;
}

/** A bias from which on a token is banned. */
const BAN = -100;

/** Whether the logits need any change before a token is chosen by temperature, top-k and the rest. */
export function shapesLogits(options: SamplingOptions): boolean {
  const { repetitionPenalty = 1, presencePenalty = 0, frequencyPenalty = 0, logitBias } = options;
  return (
    repetitionPenalty !== 1 ||
    presencePenalty !== 0 ||
    frequencyPenalty !== 0 ||
    (logitBias !== undefined && logitBias.size > 0)
  );
}

/**
 * The logits as constraint, penalties and bias leave them.
 *
 * @param logits `[vocabulary]`, not changed
 * @param allowed what `TokenConstraint.allowed` gave
 * @returns `logits` itself where nothing changes, otherwise memory that the next call uses again
 */
export function shapeLogits(
  logits: Float32Array,
  options: SamplingOptions,
  history: TokenHistory,
  allowed?: Uint32Array,
): Float32Array {
  if (allowed === undefined && !shapesLogits(options)) return logits;
  const shaped = scratchFor(logits.length).logits;
  shaped.set(logits);
  const { repetitionPenalty = 1, presencePenalty = 0, frequencyPenalty = 0, logitBias } = options;
  // Tokens that the vocabulary does not have write nothing: a typed array takes no more than its length.
  if (repetitionPenalty !== 1) {
    for (const id of history.seen) {
      const logit = shaped[id]!;
      shaped[id] = logit < 0 ? logit * repetitionPenalty : logit / repetitionPenalty;
    }
  }
  if (presencePenalty !== 0 || frequencyPenalty !== 0) {
    for (const [id, count] of history.generated) {
      shaped[id] = shaped[id]! - (presencePenalty + count * frequencyPenalty);
    }
  }
  for (const [id, bias] of logitBias ?? []) {
    shaped[id] = bias <= BAN ? Number.NEGATIVE_INFINITY : shaped[id]! + bias;
  }
  if (allowed !== undefined) forbid(shaped, allowed);
  return shaped;
}

function forbid(logits: Float32Array, allowed: Uint32Array): void {
  for (let start = 0; start < logits.length; start += 32) {
    const word = allowed[start >> 5] ?? 0;
    if (word === 0xffffffff) continue;
    const end = Math.min(start + 32, logits.length);
    for (let id = start; id < end; id++) {
      if (((word >>> (id - start)) & 1) === 0) logits[id] = Number.NEGATIVE_INFINITY;
    }
  }
}

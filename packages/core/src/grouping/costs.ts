import type { Bypass } from '../plan/types.js';

/** A group that a plan could have. */
export interface CandidateGroup {
  /** Neighbours in ascending order, at least two. */
  readonly layers: readonly number[];
  readonly bypass: Bypass;
}

/** What grouping these layers, and nothing else, does to a model. */
export interface CandidateCost extends CandidateGroup {
  /** Mean KL(original ‖ grouped) of the next-token distribution, nats a token. */
  readonly kl: number;
  /** Mean cross-entropy over that of the original, nats a token; below 0 where grouping helps. */
  readonly crossEntropy: number;
}

import type { OnProgress } from '@cqil/core';
import type { SessionOptions } from '@cqil/runtime-gpu';
import type { TextSet } from '../evaluate/index.js';
import type { Model } from '../onnx/index.js';

/** `rtn`: each value to the nearest step. `gptq`: rounding that makes up for the errors of what is rounded before it. */
export const QUANTISE_METHODS = ['rtn', 'gptq'] as const;
export type QuantiseMethod = (typeof QUANTISE_METHODS)[number];

export interface QuantiseOptions {
  /** Of the layers' matrices; 4 when absent. */
  readonly bits?: 4 | 8;
  /** Neighbouring inputs that share a scale, a power of two from 16; 32 when absent. */
  readonly blockSize?: number;
  /** `gptq` when absent, where there is text to calibrate with, else `rtn`. */
  readonly method?: QuantiseMethod;
  /** Token ids of text like that which the model is for, `[windows][tokens]`; none when absent. */
  readonly calibration?: readonly (readonly number[])[];
  /**
   * With 4 bits: the share of the layers' weights that may have 8 bits instead, from 0 to 1. Those get them that need
   * them most for their size, when all are rounded to nearest: by `development` text, else by their errors. 0 when
   * absent.
   */
  readonly finerShare?: number;
  /** Other text, which tells how much the errors of products matter, those of each size together. */
  readonly development?: Pick<TextSet, 'kinds' | 'window'>;
  /** Of the embedding table and of the product that gives the logits; `float` leaves both as they are. 8 when absent. */
  readonly embeddingBits?: 4 | 8 | 'float';
  /**
   * `accuracy_level` of the products. 4 rounds their inputs to 8 bits by blocks, too, and is faster; 1 does not. With 8
   * bits ONNX Runtime 1.30 has no fast kernel for 1 on CPUs. 4 when absent.
   */
  readonly accuracyLevel?: 1 | 4;
  /** What is added to the diagonal of XᵀX, relative to its mean; 0.01 when absent. For `gptq`. */
  readonly damping?: number;
  /** Tokens run at once; 4,096 when absent. */
  readonly batchTokens?: number;
  readonly session?: SessionOptions;
  readonly signal?: AbortSignal;
  readonly onProgress?: OnProgress;
}

/** One matrix and what it got. */
export interface QuantisedMatrix {
  /** The node that reads it. */
  readonly name: string;
  /** `product`: of the layers; `head`: gives the logits; `embedding`: is looked up by token. */
  readonly use: 'product' | 'head' | 'embedding';
  readonly inFeatures: number;
  readonly outFeatures: number;
  readonly bits: 4 | 8;
  /**
   * Σ‖(W − Ŵ)ᵀx‖² / Σ‖Wᵀx‖² over the calibration text, on a sample of the outputs; ‖W − Ŵ‖² / ‖W‖² where there is
   * none, and for head and embedding.
   */
  readonly error: number;
}

/** A matrix that stays as it is. */
export interface UnquantisedMatrix {
  readonly name: string;
  /** In words for the user, without a full stop. */
  readonly reason: string;
}

export interface QuantiseResult {
  readonly model: Model;
  readonly method: QuantiseMethod;
  /** In the order of the graph, embedding and head last. */
  readonly matrices: readonly QuantisedMatrix[];
  readonly left: readonly UnquantisedMatrix[];
}

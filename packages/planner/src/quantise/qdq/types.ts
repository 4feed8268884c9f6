import type { OnProgress } from '@cqil/core';
import type { SessionOptions } from '@cqil/runtime-gpu';
import type { Model } from '../../onnx/index.js';
import type { UnquantisedMatrix } from '../types.js';
import type { CodeBits } from './codes.js';
import type { StepRule } from './steps.js';

export interface QdqOptions {
  /** Token ids of text like that which the model is for, `[windows][tokens]`: steps are fixed by what it shows. */
  readonly calibration: readonly (readonly number[])[];
  /** Of what products read: 8 for all, 16 for all, or 16 where 8 err too much (`auto`, when absent). */
  readonly inputBits?: CodeBits | 'auto';
  /**
   * With `auto`: inputs whose error in 8 bits, relative to their mean square, is larger get 16 bits; 0.002 when absent.
   */
  readonly inputTolerance?: number;
  /** How steps of what products read are chosen; `error` when absent. */
  readonly stepRule?: StepRule;
  /** Of the residual stream; 16 when absent. */
  readonly residualBits?: CodeBits;
  /**
   * What the step of the residual stream may do to its mean square at one place before another stretch begins, see
   * `chooseStretches`; 0.0001 when absent. Infinity gives the whole model one step.
   */
  readonly residualTolerance?: number;
  /**
   * `auto`, when absent: the stream is turned such that massive activations are spread over all entries, where the graph
   * permits that (see `rotateStream`); `off`: it is left as it is.
   */
  readonly rotate?: 'auto' | 'off';
  /** Tokens run at once; 1,024 when absent. */
  readonly batchTokens?: number;
  readonly session?: SessionOptions;
  readonly signal?: AbortSignal;
  readonly onProgress?: OnProgress;
}

/** A value that products read, and what it is stored in. */
export interface QdqInput {
  /** The value of the graph. */
  readonly name: string;
  /** The products that read it, as `QdqMatrix` names them. */
  readonly products: readonly string[];
  readonly bits: CodeBits;
  readonly step: number;
  /** Mean squared error over mean square on the calibration text, tokens with massive activations held to a share. */
  readonly error: number;
}

/** A matrix in signed bytes, a scale for each output. */
export interface QdqMatrix {
  /** The node that reads it. */
  readonly name: string;
  readonly use: 'product' | 'head';
  readonly inFeatures: number;
  readonly outFeatures: number;
  /** ‖W − Ŵ‖² / ‖W‖² */
  readonly error: number;
}

/** Places of the residual stream, in a row, whose values have one step. */
export interface QdqStretch {
  /** First residual addition, counted from the embedding, and the one past the last. */
  readonly from: number;
  readonly to: number;
  readonly step: number;
}

export interface QdqResidual {
  readonly bits: CodeBits;
  /** How many additions are made of integers of one step. */
  readonly sums: number;
  readonly stretches: readonly QdqStretch[];
}

/** Whether the stream was turned, and why not, in words for the user. */
export interface QdqRotation {
  readonly applied: boolean;
  readonly reason?: string;
}

export interface QdqResult {
  readonly model: Model;
  readonly rotation: QdqRotation;
  readonly residual: QdqResidual;
  /** In the order of the graph. */
  readonly inputs: readonly QdqInput[];
  readonly matrices: readonly QdqMatrix[];
  /** Products with a constant matrix, and lookups by token or for the stream, that got no codes of this form. */
  readonly left: readonly UnquantisedMatrix[];
}

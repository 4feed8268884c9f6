import type { Logits } from './logits.js';

/** The keys and values of a sequence's first tokens. */
export interface StepCache {
  /** Positions. */
  readonly length: number;
  /** The first `length` positions, without copying; this handle and longer ones must not be used any more. */
  truncate(length: number): StepCache;
  /** Frees the memory at once. */
  dispose(): void;
}

export interface StepRequest {
  readonly inputIds: readonly (readonly number[])[];
  readonly cache?: StepCache;
  readonly keep?: 'all' | 'last';
  /** Positions that will be needed in all. */
  readonly capacity?: number;
  /** Memory that the logits may be written to; see `ForwardRequest`. */
  readonly into?: Float32Array;
  readonly signal?: AbortSignal;
}

export interface StepResult {
  readonly logits: Logits;
  readonly cache: StepCache;
}

/** What generation needs of a model; `DecoderSession` is one. */
export interface StepModel {
  forward(request: StepRequest): Promise<StepResult>;
  readonly signature?: {
    readonly cache: readonly { readonly sequenceAxis: number | undefined }[];
  };
}

/** Whether the model's cache can be cut back to an earlier position; states of a fixed size cannot. */
export function canRewind(model: StepModel): boolean {
  return model.signature?.cache.every((pair) => pair.sequenceAxis !== undefined) ?? true;
}

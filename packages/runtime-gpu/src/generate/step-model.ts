import type { Logits } from './decoder.js';

/** The keys and values of a sequence's first tokens. */
export interface StepCache {
  /** Positions. */
  readonly length: number;
  /** The first `length` positions, without copying; this handle and longer ones must not be used any more. */
  truncate(length: number): StepCache;
  /** Frees the memory at once. */
  dispose(): void;
}

export interface StepRequest<Cache> {
  readonly inputIds: readonly (readonly number[])[];
  readonly cache?: Cache;
  readonly keep?: 'all' | 'last';
  /** Positions that will be needed in all. */
  readonly capacity?: number;
  readonly signal?: AbortSignal;
}

export interface StepResult<Cache> {
  readonly logits: Logits;
  readonly cache: Cache;
}

/** What generation needs of a model; `DecoderSession` is one. */
export interface StepModel<Cache extends StepCache = StepCache> {
  forward(request: StepRequest<Cache>): Promise<StepResult<Cache>>;
  /** States of a size that does not grow cannot be taken back to an earlier position. */
  readonly signature?: { readonly cache: readonly { readonly sequenceAxis: number | undefined }[] };
}

/** Whether the model's cache can be cut back to an earlier position. */
export function canRewind(model: StepModel): boolean {
  return model.signature?.cache.every((pair) => pair.sequenceAxis !== undefined) ?? true;
}

import { CqilError, type CqilErrorDetails } from '@cqil/core';

/** The node of a graph that an error came from, as ONNX Runtime names it. */
export interface FailedNode {
  readonly opType: string;
  readonly name: string;
}

/**
 * A model that ONNX Runtime could not load or run, or a wrong use of a session.
 *
 * Codes: `MODEL_NOT_FOUND`, `MODEL_LOAD_FAILED`, `PROVIDER_UNAVAILABLE`, `RUN_FAILED`, `INPUT_MISSING`,
 * `INPUT_UNKNOWN`, `INPUT_TYPE`, `INPUT_SHAPE`, `OUTPUT_UNKNOWN`, `OUTPUT_TYPE`, `SESSION_DISPOSED`,
 * `TENSOR_DISPOSED`, `ORT_LIBRARY_UNUSABLE`, `NOT_A_DECODER`, `TOKENS_INVALID`, `CACHE_MISMATCH`, `CACHE_STALE`,
 * `PADDING_UNSUPPORTED`, `SAMPLING_INVALID`, `NO_TOKEN_LEFT`, `SPECULATION_UNSUPPORTED`,
 * `PARTITION_NOT_FOUND`, `PARTITION_INVALID`, `PARTITION_STALE`, `EXECUTOR_DEADLINE`, `EXECUTOR_DEVICE_LOST`,
 * `EXECUTOR_MEMORY_HELD`, `EXECUTOR_OUT_OF_MEMORY`, `OUT_OF_MEMORY`, `PARTITION_OPTIONS`.
 */
export class InferenceError extends CqilError {
  override readonly name = 'InferenceError';
  /** Set when ONNX Runtime named the node that failed. */
  readonly node: FailedNode | undefined;

  constructor(code: string, message: string, details: CqilErrorDetails & { node?: FailedNode } = {}) {
    super(code, message, details);
    this.node = details.node;
  }
}

import type { ElementType, TensorValue } from '../tensor/types.js';

/** An input or output of a graph. */
export interface ValueInfo {
  readonly name: string;
  readonly elementType: ElementType;
  /** A number for each fixed dimension, a name (may be empty) for each free one. */
  readonly shape: readonly (number | string)[];
}

/** An execution provider by the name that ONNX Runtime gives it. */
export type ProviderName = 'cpu' | 'webgpu' | 'cuda' | 'tensorrt' | 'dml' | 'coreml' | (string & {});

export interface SessionOptions {
  /** Threads inside an operator; ONNX Runtime's own choice (one a physical core) when absent. */
  readonly threads?: number;
  /** In order of preference. `['cpu']` when absent. */
  readonly providers?: readonly ProviderName[];
  /** How far ONNX Runtime may change the graph at load; `'all'` when absent. */
  readonly graphOptimization?: 'disabled' | 'basic' | 'extended' | 'all';
  /** ONNX Runtime's own configuration entries, e.g. `{'session.disable_prepacking': '1'}`. */
  readonly config?: Readonly<Record<string, string>>;
  /** For a model given as bytes: the folder that its external data is relative to. */
  readonly externalDataFolder?: string;
  /** `native` when absent, and `node` where that cannot be had; see `Session.binding`. */
  readonly binding?: 'native' | 'node';
  /** ONNX Runtime's log: `silent` when absent, since everything that fails is thrown. */
  readonly log?: 'silent' | 'warning' | 'verbose';
}

export interface RunOptions {
  /** Ends a run between two of its nodes where the binding can (`native`), else before the next run. */
  readonly signal?: AbortSignal;
}

/** A model that ONNX Runtime has loaded. */
export interface Session {
  /**
   * How runs reach ONNX Runtime. `native`: through its C API, off the main thread. `node`: through onnxruntime-node,
   * which computes on the thread that calls.
   */
  readonly binding: 'native' | 'node';
  readonly inputs: readonly ValueInfo[];
  readonly outputs: readonly ValueInfo[];
  /** What the model is called in errors: its path, or `model in memory`. */
  readonly model: string;
  /**
   * Runs the graph once.
   *
   * @param feeds one tensor for every input
   * @param fetches names of the outputs to hand out; all of them when absent
   * @throws InferenceError `INPUT_MISSING`, `INPUT_UNKNOWN`, `INPUT_TYPE`, `INPUT_SHAPE`, `OUTPUT_UNKNOWN`
   *   before anything runs; `RUN_FAILED` or `OUT_OF_MEMORY` with the node from ONNX Runtime; `SESSION_DISPOSED`; the signal's reason.
   */
  run(
    feeds: Readonly<Record<string, TensorValue>>,
    fetches?: readonly string[],
    options?: RunOptions,
  ): Promise<Record<string, TensorValue>>;
  /** Frees the model. Waits for a run in progress; may be called more than once. */
  dispose(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

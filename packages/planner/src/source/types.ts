import type { NamedDtype } from './dtype.js';

/**
 * How a model lies on disk.
 * `transformers`: graphs named by dtype, in `onnx/` or beside the configs (Optimum, Transformers.js).
 * `genai`: `genai_config.json` names the graph (ONNX Runtime GenAI's builder).
 * `file`: one graph, without a config that this project knows.
 */
export type ModelLayout = 'transformers' | 'genai' | 'file';

/** One graph of a model on disk, and what belongs to it. */
export interface ModelSource {
  /** The model's folder, absolute: where its configs and tokenizer are. */
  readonly root: string;
  /** The chosen graph, absolute; may be a symbolic link. */
  readonly onnxFile: string;
  /** The chosen graph relative to `root`, with forward slashes. */
  readonly onnxRelative: string;
  /** What the file's name says; `as-is` where names carry no dtype (GenAI, single files). */
  readonly dtype: NamedDtype | 'as-is';
  readonly layout: ModelLayout;
  /** The dtypes that could be chosen here; empty where names carry no dtype. */
  readonly available: readonly NamedDtype[];
  /**
   * Configs, tokenizer and whatever else is in the folder, relative to `root` with forward slashes, sorted;
   * no weights of any graph or checkpoint, no hidden files. Empty for a lone file.
   */
  readonly sideFiles: readonly string[];
}

import { mkdir, readdir, stat, writeFile } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import type { OnProgress } from '@cqil/core';
import { type Model, writeModel } from '../onnx/index.js';
import { readVector } from './float-data.js';
import { writeFolder } from './folder.js';
import { buildLlamaGraph } from './llama-graph.js';
import {
  FILE_SUFFIX,
  generationConfig,
  type ImportRecord,
  modelConfig,
  type TransformersDtype,
} from './model-config.js';
import { type GgufModel, readGguf } from './model-file.js';
import { type LlamaParameters, llamaParameters } from './parameters.js';
import { chooseStorage, type ImportDtype } from './storage.js';
import { tokenizerFiles } from './tokenizer/tokenizer-files.js';
import { type LlamaWeights, llamaWeights } from './weights.js';

export interface ImportOptions {
  /**
   * `source` (the default) keeps block-quantised weights in blocks; `fp32` and `fp16` write the numbers that
   * the blocks stand for.
   */
  readonly dtype?: ImportDtype;
  /** Write into a folder that has other contents, too. */
  readonly force?: boolean;
  readonly signal?: AbortSignal;
  readonly onProgress?: OnProgress;
}

export interface ImportResult {
  /** The folder, absolute. */
  readonly folder: string;
  /** The graph, absolute. */
  readonly onnxFile: string;
  /** Transformers.js's name for what was written. */
  readonly dtype: TransformersDtype;
  /** How the weights are stored, in words. */
  readonly weights: string;
  readonly parameters: LlamaParameters;
  /** Size of the graph with its weights. */
  readonly bytes: number;
}

/** From here on the weights go to a file of their own, which a runtime can map instead of reading. */
const EXTERNAL_FROM_BYTES = 256 * 1024 * 1024;

/**
 * Turns a GGUF model of architecture `llama` into a folder that stock Transformers.js loads: `config.json`,
 * `generation_config.json`, `tokenizer.json`, `tokenizer_config.json` and `onnx/model*.onnx`.
 *
 * The folder appears when it is complete, or not at all. Equal input gives equal bytes.
 *
 * @example
 * ```ts
 * const { folder } = await importGguf('SmolLM2-135M-Instruct.Q4_1.gguf', 'models/smollm2', { dtype: 'fp32' });
 * ```
 * @throws ModelFormatError `GGUF_…` for files that are damaged or of an unsupported kind
 * @throws UsageError `OUTPUT_NOT_EMPTY`; EnvironmentError `WRITE_FAILED`; the signal's reason
 */
export async function importGguf(
  file: string,
  outDir: string,
  options: ImportOptions = {},
): Promise<ImportResult> {
  const { signal, onProgress } = options;
  signal?.throwIfAborted();
  onProgress?.({ phase: 'reading metadata', done: 0, total: 1 });
  const gguf = await readGguf(file);
  const parameters = llamaParameters(gguf);
  const weights = llamaWeights(gguf, parameters);
  const { tokenizer, config, special } = tokenizerFiles(
    gguf.metadata,
    parameters.vocabSize,
    parameters.contextLength,
  );
  const factors = weights.ropeFactors === undefined ? undefined : await readVector(weights.ropeFactors);
  const { storage, dtype, description } = chooseStorage(options.dtype ?? 'source', weights);
  const record: ImportRecord = {
    source: basename(gguf.files[0]!),
    name: gguf.metadata.string('general.name') ?? null,
    source_types: countTypes(gguf),
    dtype,
    weights: description,
  };
  const model = buildLlamaGraph(parameters, weights, storage, factors);
  model.setMetadata('cqil.import', JSON.stringify(record));
  const onnxName = `model${FILE_SUFFIX[dtype]}.onnx`;
  const external = weightBytes(model) >= EXTERNAL_FROM_BYTES;
  onProgress?.({ phase: 'reading metadata', done: 1, total: 1 });

  let bytes = 0;
  await writeFolder(outDir, record.source, options.force ?? false, async (folder) => {
    const json = (name: string, value: unknown) =>
      writeFile(join(folder, name), `${JSON.stringify(value, undefined, 2)}\n`);
    await mkdir(join(folder, 'onnx'));
    await writeModel(model, join(folder, 'onnx', onnxName), {
      external: external ? { location: `${onnxName}_data` } : 'inline',
      ...(signal === undefined ? {} : { signal }),
      ...(onProgress === undefined ? {} : { onProgress }),
    });
    bytes = await folderBytes(join(folder, 'onnx'));
    await json('tokenizer.json', tokenizer);
    await json('tokenizer_config.json', config);
    await json('generation_config.json', generationConfig(special));
    await json(
      'config.json',
      modelConfig(parameters, special, biases(weights), record, external ? { [onnxName]: 1 } : {}),
    );
    signal?.throwIfAborted();
  });
  const folder = resolve(outDir);
  return {
    folder,
    onnxFile: join(folder, 'onnx', onnxName),
    dtype,
    weights: description,
    parameters,
    bytes,
  };
}

function countTypes({ tensors }: GgufModel): Record<string, number> {
  const counts = new Map<string, number>();
  for (const { type } of tensors.values()) counts.set(type, (counts.get(type) ?? 0) + 1);
  return Object.fromEntries([...counts].sort(([a], [b]) => (a < b ? -1 : 1)));
}

function weightBytes(model: Model): number {
  let sum = 0;
  for (const tensor of model.graph.initializers.values()) sum += tensor.byteLength;
  return sum;
}

async function folderBytes(folder: string): Promise<number> {
  const sizes = await Promise.all(
    (await readdir(folder)).map(async (name) => (await stat(join(folder, name))).size),
  );
  return sizes.reduce((a, b) => a + b, 0);
}

function biases({ layers }: LlamaWeights): { attention: boolean; ffn: boolean } {
  return {
    attention: layers.some((layer) => layer.qkv.biases !== undefined),
    ffn: layers.some((layer) => layer.gateUp.biases !== undefined),
  };
}

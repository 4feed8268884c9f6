import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import type { Model, TensorData } from '../onnx/index.js';
import { Tensor } from '../onnx/tensor.js';
import { graphFileName, type ModelSource, type NamedDtype } from '../source/index.js';

/** Up to here weights are in the graph's file: it is then the model, and loads as fast. Protobuf's limit is 2 GB. */
const INLINE_LIMIT = 2 ** 29;
/** Smaller weights stay in the graph. */
const EXTERNAL_BYTES = 1024;

/**
 * The source as it is to be written: the same folder, the graph under the name that Transformers.js knows its new dtype
 * by. Where names carry no dtype they stay.
 *
 * @param half whether the graph computes in float16
 */
export function renamedSource(source: ModelSource, bits: 4 | 8, half: boolean): ModelSource {
  if (source.layout !== 'transformers') return source;
  const dtype: NamedDtype = bits === 8 ? 'q8' : half ? 'q4f16' : 'q4';
  const folder = path.posix.dirname(source.onnxRelative);
  return { ...source, dtype, onnxRelative: path.posix.join(folder, graphFileName(dtype)) };
}

/**
 * Puts the weights where Transformers.js looks for them: in the graph's file, or in `<graph>_data` where they are many.
 *
 * @returns whether there is a data file
 */
export function placeWeights(
  model: Model,
  { onnxRelative }: Pick<ModelSource, 'onnxRelative'>,
  limit = INLINE_LIMIT,
): boolean {
  const tensors = [...model.graph.initializers];
  const bytes = tensors.reduce((sum, [, { byteLength }]) => sum + byteLength, 0);
  const external = bytes > limit;
  const location = `${path.posix.basename(onnxRelative)}_data`;
  for (const [name, { header, data, field }] of tensors) {
    if (data === undefined || field === undefined) continue;
    const moved =
      external && data.byteLength >= EXTERNAL_BYTES
        ? ({ data: unplaced(data), field: 'external', location } as const)
        : ({ data, field: field === 'external' ? 'raw_data' : field } as const);
    model.graph.initializers.set(name, Tensor.fromWire(header, moved));
  }
  return external;
}

/** The same bytes without the offset that a range of a file would keep. */
function unplaced(data: TensorData): TensorData {
  const { byteLength, key } = data;
  return {
    byteLength,
    read: () => data.read(),
    ...(data.chunks === undefined ? {} : { chunks: () => data.chunks!() }),
    ...(key === undefined ? {} : { key }),
  };
}

/** Says in a folder's config whether its graph has a data file. */
export async function nameDataFile(root: string, external: boolean): Promise<void> {
  const file = path.join(root, 'config.json');
  const text = await readFile(file, 'utf8').catch(() => undefined);
  if (text === undefined) return;
  const config = JSON.parse(text) as Record<string, unknown>;
  const { use_external_data_format: named, ...own } = asRecord(config['transformers.js_config']);
  if (!external && named === undefined) return;
  config['transformers.js_config'] = { ...own, ...(external ? { use_external_data_format: true } : {}) };
  await writeFile(file, `${JSON.stringify(config, null, 2)}\n`);
}

function asRecord(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? (value as Record<string, unknown>)
    : {};
}

import { blockFormat, isBlockType } from './blocks.js';
import type { Storage } from './llama-graph.js';
import type { TransformersDtype } from './model-config.js';
import { blockStorage } from './storage-blocks.js';
import { floatStorage } from './storage-float.js';
import type { QuantType } from './types.js';
import type { LlamaWeights } from './weights.js';

/** What to make of the weights: keep them as they are stored, or turn them into numbers of one type. */
export const IMPORT_DTYPES = ['source', 'fp32', 'fp16'] as const;

export type ImportDtype = (typeof IMPORT_DTYPES)[number];

/** How the weights of a model are stored for the dtype asked for. */
export interface StorageChoice {
  readonly storage: Storage;
  readonly dtype: TransformersDtype;
  /** In words, for the record. */
  readonly description: string;
}

export function chooseStorage(dtype: ImportDtype, weights: LlamaWeights): StorageChoice {
  if (dtype === 'fp32') {
    return { storage: floatStorage('float32'), dtype, description: 'dequantised to float32' };
  }
  if (dtype === 'fp16') {
    return { storage: floatStorage('float16'), dtype, description: 'dequantised to float16' };
  }
  return sourceStorage(matrixTypes(weights));
}

/** The storage closest to the file's own. */
function sourceStorage(types: ReadonlySet<QuantType>): StorageChoice {
  const blocks = [...types].filter(isBlockType);
  if (blocks.length === 0) {
    // bfloat16 has a wider range than half precision: only float32 holds all of its values.
    return types.size === 1 && types.has('F16')
      ? { storage: floatStorage('float16'), dtype: 'fp16', description: 'float16, as in the source' }
      : {
          storage: floatStorage('float32'),
          dtype: 'fp32',
          description: 'float32, every value of the source',
        };
  }
  const formats = blocks.map((type) => blockFormat(type));
  const parts = ['blocks of the source repacked without a second quantisation'];
  if (formats.some(({ bits }) => bits === 5 || bits === 6)) parts.push('codes of 5 and 6 bits in 8');
  if (formats.some(({ hasMinimum }) => hasMinimum)) {
    parts.push('minima as zero points and products of block sums');
  }
  return {
    storage: blockStorage,
    dtype: formats.some(({ bits }) => bits === 4) ? 'q4' : 'q8',
    description: parts.join('; '),
  };
}

/** The types of the layers' matrices: embedding and output are often kept finer. */
function matrixTypes({ layers }: LlamaWeights): Set<QuantType> {
  const types = new Set<QuantType>();
  for (const { qkv, attentionOutput, gateUp, down } of layers) {
    for (const layer of [qkv, attentionOutput, gateUp, down]) {
      for (const { type } of layer.parts) types.add(type);
    }
  }
  return types;
}

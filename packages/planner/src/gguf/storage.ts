import type { Storage } from './llama-graph.js';
import type { TransformersDtype } from './model-config.js';
import { floatStorage } from './storage-float.js';
import type { LlamaWeights } from './weights.js';

/** What to make of the weights. */
export type ImportDtype = 'fp32' | 'fp16';

/** How the weights of a model are stored for the dtype asked for. */
export interface StorageChoice {
  readonly storage: Storage;
  readonly dtype: TransformersDtype;
  /** In words, for the record. */
  readonly description: string;
}

export function chooseStorage(dtype: ImportDtype, _weights: LlamaWeights): StorageChoice {
  if (dtype === 'fp16') {
    return { storage: floatStorage('float16'), dtype, description: 'dequantised to float16' };
  }
  return { storage: floatStorage('float32'), dtype, description: 'dequantised to float32' };
}

import path from 'node:path';
import { DecoderSession } from '@cqil/runtime-gpu';
import type { Model } from '../../onnx/index.js';
import { openVariant } from '../../variant/index.js';

/** Path of a file under `testdata/`. */
export function testdata(file: string): string {
  return path.resolve(import.meta.dirname, '../../../../../testdata', file);
}

/** Every decoder in `testdata/` that can be analysed, and how its weights are stored. */
export const DECODERS = [
  ['optimum/llama/onnx/model.onnx', 'float32'],
  ['optimum/llama/onnx/model_fp16.onnx', 'float16'],
  ['optimum/llama/onnx/model_quantized.onnx', 'int8'],
  ['optimum/gpt2/onnx/model.onnx', 'float32'],
  ['optimum/qwen2/onnx/model.onnx', 'float32'],
  ['optimum/phi3/onnx/model.onnx', 'float32'],
  ['genai-fp32/llama/model.onnx', 'float32'],
  ['genai-fp32/qwen2/model.onnx', 'float32'],
  ['genai-int4/llama/model.onnx', 'int4'],
  ['families/bloom/optimum/onnx/model.onnx', 'float32'],
  ['families/gemma2/genai-fp32/model.onnx', 'float32'],
  ['families/gemma3_text/optimum/onnx/model.onnx', 'float32'],
  ['families/gpt2/fused/model.onnx', 'float32'],
  ['families/gpt_neox/optimum/onnx/model.onnx', 'float32'],
  ['families/granite/optimum/onnx/model.onnx', 'float32'],
  ['families/olmo2/optimum/onnx/model.onnx', 'float32'],
  ['families/olmo2/optimum/onnx/model_quantized.onnx', 'int8'],
  ['families/opt/optimum/onnx/model.onnx', 'float32'],
  ['families/opt/optimum/onnx/model_q4f16.onnx', 'float16'],
  ['families/phi/optimum/onnx/model.onnx', 'float32'],
  ['families/qwen3/genai-int4/model.onnx', 'int4'],
  ['families/qwen3/optimum/onnx/model.onnx', 'float32'],
] as const;

export const PROMPT = [5, 17, 21, 3, 9, 40, 11, 2, 33, 8, 60, 12];

/** Logits of all positions of a prompt, `[seq, vocabulary]` row-major. */
export async function logitsOf(model: Model, ids: readonly number[] = PROMPT): Promise<Float32Array> {
  const decoder = new DecoderSession(await openVariant(model, { threads: 1 }));
  try {
    return (await decoder.forward({ inputIds: [ids], returnCache: false })).logits.data;
  } finally {
    await decoder.dispose();
  }
}

/** The largest difference; infinite where one is no number or the lengths differ. */
export function distance(a: Float32Array, b: Float32Array): number {
  if (a.length !== b.length) return Number.POSITIVE_INFINITY;
  return a.reduce((worst, value, i) => {
    const apart = Math.abs(value - (b[i] as number));
    return Number.isNaN(apart) ? Number.POSITIVE_INFINITY : Math.max(worst, apart);
  }, 0);
}

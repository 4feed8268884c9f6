import path from 'node:path';
import { it } from 'vitest';
import { readModel } from '../onnx/index.js';
import { analyze } from './index.js';

const testdata = path.resolve(import.meta.dirname, '../../../../testdata');
for (const m of [
  'optimum/llama/onnx/model.onnx',
  'optimum/llama/onnx/model_fp16.onnx',
  'optimum/llama/onnx/model_quantized.onnx',
  'optimum/gpt2/onnx/model.onnx',
  'optimum/qwen2/onnx/model.onnx',
  'optimum/phi3/onnx/model.onnx',
  'genai-fp32/llama/model.onnx',
  'genai-fp32/qwen2/model.onnx',
  'genai-int4/llama/model.onnx',
])
  it(m, async () => {
    const t0 = performance.now();
    const a = analyze(await readModel(path.join(testdata, m)));
    console.log(m, performance.now() - t0, a.streamStart, a.streamEnd, a.layers.length);
    for (const l of a.layers.slice(0, 2))
      console.log(
        l.index,
        l.kind,
        l.input,
        '->',
        l.output,
        l.cache,
        l.attention?.norm,
        l.attention?.normOutput,
        l.attention?.postNorm,
        l.attention?.nodes.length,
        l.ffn?.norm,
        l.ffn?.normOutput,
        l.ffn?.postNorm,
        l.ffn?.nodes.map((n) => n.opType).join(),
        l.ungroupable,
        l.attention?.add.contributions,
      );
  });

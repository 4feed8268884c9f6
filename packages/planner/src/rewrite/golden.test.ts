import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, it } from 'vitest';
import { meetsGolden } from './testing/meets-golden.js';

const testdata = path.resolve(import.meta.dirname, '../../../../testdata');

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(path.join(os.tmpdir(), 'cqil-rewrite-'));
});
afterEach(() => rm(dir, { recursive: true, force: true }));

describe.each([
  ['optimum/llama/onnx/model.onnx', 'tiny-llama'],
  ['optimum/qwen2/onnx/model.onnx', 'tiny-qwen2'],
  ['optimum/phi3/onnx/model.onnx', 'tiny-phi3'],
  ['optimum/gpt2/onnx/model.onnx', 'tiny-gpt2'],
  ['genai-fp32/llama/model.onnx', 'tiny-llama'],
  ['genai-fp32/qwen2/model.onnx', 'tiny-qwen2'],
])('%s, rewritten, computes what an independent implementation computes', (model, name) => {
  it('for every plan, in prefill, in decode and in a padded batch', async () => {
    await meetsGolden(path.join(testdata, model), path.join(testdata, 'golden', `${name}.json`), dir);
  });
});

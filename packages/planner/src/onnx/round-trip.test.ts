import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { readModel, writeModel } from './index.js';

const testdata = path.resolve(import.meta.dirname, '../../../../testdata');
const models = [
  'optimum/llama/onnx/model.onnx',
  'optimum/llama/onnx/model_fp16.onnx',
  'optimum/llama/onnx/model_quantized.onnx',
  'optimum/gpt2/onnx/model.onnx',
  'optimum/qwen2/onnx/model.onnx',
  'optimum/phi3/onnx/model.onnx',
  'genai-fp32/llama/model.onnx',
  'genai-fp32/qwen2/model.onnx',
  'genai-int4/llama/model.onnx',
];

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(path.join(os.tmpdir(), 'cqil-onnx-'));
});
afterEach(() => rm(dir, { recursive: true, force: true }));

describe('reading and writing', () => {
  it.each(models)('gives back the bytes of %s', async (name) => {
    const source = path.join(testdata, name);
    const target = path.join(dir, path.basename(name));
    const written = await writeModel(await readModel(source), target);
    expect(written[0]).toBe(target);
    expect((await readFile(target)).equals(await readFile(source))).toBe(true);
    for (const file of written.slice(1)) {
      const original = path.join(path.dirname(source), path.basename(file));
      expect((await readFile(file)).equals(await readFile(original))).toBe(true);
    }
    expect(await readdir(dir)).toHaveLength(written.length);
  });
});

import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll } from 'vitest';
import { TESTDATA } from './temporary.js';
import { writeTokenizer } from './tokenizer.js';

const made: string[] = [];

afterAll(() => {
  for (const folder of made.splice(0)) rmSync(folder, { recursive: true, force: true });
});

/**
 * A fixture of ONNX Runtime GenAI's builder, whose attention operators can append to their cache in place, as a folder
 * that Transformers.js loads; with a tokenizer.
 */
export function genaiModel(name: 'genai-fp32/llama' | 'genai-int4/llama'): string {
  const folder = optimumModel('optimum/llama', false);
  for (const file of ['model.onnx', 'model.onnx.data']) {
    cpSync(join(TESTDATA, name, file), join(folder, 'onnx', file));
  }
  return folder;
}

/**
 * A fixture of Optimum, whose attention is made of plain operators; with a tokenizer. Removed after the file's last test.
 */
export function optimumModel(name: string, graphs = true): string {
  const folder = mkdtempSync(join(tmpdir(), 'cqil-model-'));
  made.push(folder);
  mkdirSync(join(folder, 'onnx'), { recursive: true });
  cpSync(join(TESTDATA, name), folder, {
    recursive: true,
    filter: (source) => graphs || !source.endsWith('.onnx'),
  });
  writeFileSync(join(folder, 'generation_config.json'), JSON.stringify({ eos_token_id: 2, pad_token_id: 0 }));
  writeTokenizer(folder);
  return folder;
}

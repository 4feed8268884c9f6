import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { DecoderSession } from '@cqil/runtime-gpu';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createOpenAIHandler } from '../handler.js';
import { post } from '../test/client.js';
import { tinyModel } from '../test/tiny-model.js';
import { openModelFolder } from './folder.js';
import { cacheBytesPerToken, modelFiles, weightBytes } from './memory.js';
import { openTextModel, textModelMemory } from './open.js';

const GROUPED = fileURLToPath(new URL('../../../../testdata/genai-fp32/llama/', import.meta.url));

let root: string;
const at = (...names: string[]) => join(root, ...names);

beforeAll(() => {
  root = mkdtempSync(join(tmpdir(), 'cqil-memory-'));
  using tiny = tinyModel();
  for (const name of ['one', 'two']) {
    cpSync(tiny.folder, at(name), { recursive: true });
    rmSync(at(name, 'onnx'), { recursive: true });
    cpSync(GROUPED, at(name, 'onnx'), { recursive: true });
  }
});
afterAll(() => rmSync(root, { recursive: true, force: true }));

describe('modelFiles', () => {
  it('finds the data files that a graph names', async () => {
    writeFileSync(at('one', 'onnx', 'other.bin'), 'not the graph’s');
    expect(await modelFiles(at('one'), at('one', 'onnx', 'model.onnx'))).toEqual({
      graph: statSync(join(GROUPED, 'model.onnx')).size,
      data: statSync(join(GROUPED, 'model.onnx.data')).size,
      tokenizer: statSync(at('one', 'tokenizer.json')).size,
    });
  });

  it.each([-20, -13, -11, -5, 0])('finds them wherever they stand in a large graph (%i)', async (shift) => {
    const folder = at(`shift${shift}`);
    mkdirSync(folder);
    const graph = Buffer.alloc((1 << 22) + 1000);
    graph.write('\x0a\x08location\x12\x08data.bin', (1 << 22) + shift, 'latin1');
    writeFileSync(join(folder, 'model.onnx'), graph);
    writeFileSync(join(folder, 'data.bin'), 'twelve bytes');
    const files = await modelFiles(folder, join(folder, 'model.onnx'));
    expect(files).toEqual({ graph: graph.length, data: 12, tokenizer: 0 });
  });
});

describe('cacheBytesPerToken', () => {
  it('is what the graph says', async () => {
    await using decoder = await DecoderSession.open(at('one', 'onnx', 'model.onnx'));
    const floats = decoder.signature.cache.reduce(
      (sum, { past }) => sum + Number(past.shape[1]) * Number(past.shape[3]),
      0,
    );
    const llama = { num_hidden_layers: 6, num_attention_heads: 8, num_key_value_heads: 4, hidden_size: 64 };
    expect(cacheBytesPerToken(llama)).toBe(6 * 2 * 4 * 8 * 4);
    const config = JSON.parse(readFileSync(at('one', 'config.json'), 'utf8'));
    expect(cacheBytesPerToken(config)).toBe(4 * floats);
    expect(cacheBytesPerToken({})).toBe(0);
  });
});

describe('a model of a folder', () => {
  it('says what it takes, with its caches as they grow', async () => {
    const files = await modelFiles(at('one'), at('one', 'onnx', 'model.onnx'));
    const estimate = await textModelMemory(at('one'), { parallel: 2, keptPrefixes: 2 });
    await using model = await openTextModel(at('one'), { parallel: 2, keptPrefixes: 2 });
    const { bytes } = model;
    expect(bytes).toBe(weightBytes(files));
    const promptIds = await model.encode('x'.repeat(100));
    const signal = new AbortController().signal;
    const request = { promptIds, maxTokens: 5, temperature: 0, topP: 1, seed: 1, signal };
    for await (const _ of model.generate(request));
    expect(model.bytes).toBeGreaterThan(bytes);
    // Four sequences of 256 tokens.
    expect(model.bytes).toBeLessThan(estimate);
  });

  it('makes room for another of the same size, and comes again', async () => {
    await using one = await openModelFolder(at('one'), { variants: false });
    await using two = await openModelFolder(at('two'), { variants: false });
    const size = await textModelMemory(at('one'));
    const weights = weightBytes(await modelFiles(at('one'), at('one', 'onnx', 'model.onnx')));
    const handler = createOpenAIHandler({
      models: [...one.sources, ...two.sources],
      memoryBytes: size + weights / 2,
      metrics: true,
    });
    const ask = async (model: string) => {
      const body = { model, prompt: 'Once upon a time', max_tokens: 8, temperature: 0 };
      const response = await handler(post('/v1/completions', body));
      const { choices } = (await response.json()) as { choices: { text: string }[] };
      return choices[0]?.text;
    };
    const first = await ask('one');
    expect(first).not.toBe('');
    expect(await ask('two')).toBe(first);
    expect(await ask('one')).toBe(first);
    expect(await Promise.all(['one', 'two', 'two', 'one', 'two'].map(ask))).toEqual(new Array(5).fill(first));
    const metrics = await (await handler(new Request('http://localhost/metrics'))).text();
    const loaded = ['one', 'two'].map((id) => metrics.includes(`cqil_model_loaded{model="${id}"} 1`));
    expect(loaded).toEqual([false, true]);
  });

  it('is not opened any more once its folder has been disposed of', async () => {
    const folder = await openModelFolder(at('one'), { variants: false });
    const opening = folder.sources[0]!.open();
    const refused = expect(opening).rejects.toMatchObject({ code: 'MODEL_DISPOSED' });
    await folder.dispose();
    await refused;
    await expect(folder.sources[0]!.open()).rejects.toMatchObject({ code: 'MODEL_DISPOSED' });
  });
});

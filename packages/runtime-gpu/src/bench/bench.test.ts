import { describe, expect, it } from 'vitest';
import { testdata } from '../test/fixtures.js';
import { bench } from './bench.js';

const llama = { name: 'llama', file: testdata('genai-fp32/llama/model.onnx') };
const qwen2 = { name: 'qwen2', file: testdata('genai-fp32/qwen2/model.onnx') };
const plain = { name: 'plain', file: testdata('optimum/llama/onnx/model.onnx') };
const short = { promptTokens: 8, decodeTokens: 3, repeats: 4, warmup: 1, session: { threads: 1 } };

describe('bench', () => {
  it('measures every model in every round and says on what', async () => {
    const seen: string[] = [];
    const result = await bench([llama, qwen2], { ...short, onProgress: ({ phase }) => seen.push(phase) });
    expect(result.models.map(({ name }) => name)).toEqual(['llama', 'qwen2']);
    expect(result.settings).toEqual({
      promptTokens: 8,
      decodeTokens: 3,
      repeats: 4,
      warmup: 1,
      threads: 1,
      providers: ['cpu'],
    });
    for (const model of result.models) {
      expect(model.prefillMs.count).toBe(4);
      expect(model.decodeMs.min).toBeGreaterThan(0);
    }
    expect(result.models[0]!.decodeRatio).toMatchObject({ min: 1, max: 1 });
    expect(result.machine.onnxruntime).toMatch(/^\d+\.\d+/);
    expect(seen.filter((phase) => phase === 'warming up')).toHaveLength(2);
    expect(seen.filter((phase) => phase === 'measuring')).toHaveLength(8);
    expect(JSON.parse(JSON.stringify(result))).toEqual(result);
  });

  it('finds a longer prompt slower', async () => {
    const time = async (promptTokens: number) =>
      (await bench([plain], { ...short, promptTokens })).models[0]!.prefillMs.median;
    expect(await time(400)).toBeGreaterThan(await time(4));
  });

  it('stops when it is aborted', async () => {
    const controller = new AbortController();
    const run = bench([llama], {
      ...short,
      signal: controller.signal,
      onProgress: ({ phase }) => phase === 'measuring' && controller.abort(new Error('enough')),
    });
    await expect(run).rejects.toThrow('enough');
  });

  it('refuses what makes no sense', async () => {
    await expect(bench([])).rejects.toMatchObject({ code: 'BENCH_OPTIONS' });
    await expect(bench([llama], { repeats: 0 })).rejects.toThrow(/"repeats"/);
    await expect(bench([llama], { decodeTokens: 1.5 })).rejects.toThrow(/"decodeTokens"/);
  });
});

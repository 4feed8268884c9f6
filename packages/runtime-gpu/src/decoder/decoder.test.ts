import { afterEach, describe, expect, it } from 'vitest';
import { argmax } from '../generate/sampling.js';
import { golden, maxAbsDifference, testdata } from '../test/fixtures.js';
import { DecoderSession } from './decoder.js';
import type { Logits } from './logits.js';

const opened: DecoderSession[] = [];
async function open(path: string): Promise<DecoderSession> {
  const decoder = await DecoderSession.open(testdata(path), { threads: 1 });
  opened.push(decoder);
  return decoder;
}
afterEach(async () => {
  await Promise.all(opened.splice(0).map((decoder) => decoder.dispose()));
});

/** Logits at one position of one row. */
function at(logits: Logits, row: number, position: number): Float32Array {
  const [, count, vocabulary] = logits.dims;
  const start = (row * count + position) * vocabulary;
  return logits.data.subarray(start, start + vocabulary);
}

const FP32 = [
  ['optimum/llama/onnx/model.onnx', 'llama'],
  ['optimum/gpt2/onnx/model.onnx', 'gpt2'],
  ['optimum/qwen2/onnx/model.onnx', 'qwen2'],
  ['optimum/phi3/onnx/model.onnx', 'phi3'],
  ['genai-fp32/llama/model.onnx', 'llama'],
  ['genai-fp32/qwen2/model.onnx', 'qwen2'],
] as const;

describe('DecoderSession', () => {
  it.each(FP32)('%s gives the golden logits at once and token by token', async (path, family) => {
    const decoder = await open(path);
    const { ids, base } = golden(family);
    const whole = await decoder.forward({ inputIds: [ids] });
    expect(whole.logits.dims).toEqual([1, ids.length, 512]);
    expect(maxAbsDifference(at(whole.logits, 0, ids.length - 1), base.logits_last)).toBeLessThan(1e-3);
    expect(ids.map((_, i) => argmax(at(whole.logits, 0, i)))).toEqual(base.argmax);

    let step = await decoder.forward({ inputIds: [ids.slice(0, 10)], keep: 'last' });
    for (const id of ids.slice(10)) {
      step = await decoder.forward({ inputIds: [[id]], cache: step.cache, keep: 'last' });
    }
    expect(step.cache.length).toBe(ids.length);
    expect(maxAbsDifference(step.logits.data, base.logits_last)).toBeLessThan(1e-3);
  });

  it.each(FP32.slice(0, 4))(
    '%s: a row padded on the left gives what it gives alone',
    async (path, family) => {
      const decoder = await open(path);
      const { ids, base } = golden(family);
      const short = ids.slice(0, 9);
      const alone = await decoder.forward({ inputIds: [short], keep: 'last' });
      let batch = await decoder.forward({ inputIds: [ids.slice(0, -1), short], keep: 'last' });
      expect(batch.logits.dims).toEqual([2, 1, 512]);
      expect(maxAbsDifference(at(batch.logits, 1, 0), alone.logits.data)).toBeLessThan(1e-4);

      const after = await decoder.forward({ inputIds: [[42]], cache: alone.cache });
      batch = await decoder.forward({ inputIds: [[ids.at(-1)!], [42]], cache: batch.cache });
      expect(maxAbsDifference(at(batch.logits, 0, 0), base.logits_last)).toBeLessThan(1e-3);
      expect(maxAbsDifference(at(batch.logits, 1, 0), after.logits.data)).toBeLessThan(1e-4);
    },
  );

  it('reads half-precision models', async () => {
    const decoder = await open('optimum/llama/onnx/model_fp16.onnx');
    const { ids, base } = golden('llama');
    const { logits, cache } = await decoder.forward({ inputIds: [ids], keep: 'last' });
    expect(cache.tensors['past_key_values.0.key']!.type).toMatch(/float(16|32)/);
    expect(maxAbsDifference(logits.data, base.logits_last)).toBeLessThan(0.02);
  });

  it('leaves the cache out when it is not wanted, and hands out other outputs', async () => {
    const decoder = await open('optimum/llama/onnx/model.onnx');
    const { outputs, cache } = await decoder.forward({
      inputIds: [[1, 2, 3]],
      returnCache: false,
      outputs: ['present.2.value'],
    });
    expect(cache.tensors).toEqual({});
    expect(Object.keys(outputs)).toEqual(['present.2.value']);
    expect(outputs['present.2.value']!.dims).toEqual([1, 2, 3, 16]);
  });

  it('does not change a cache that it was given', async () => {
    const decoder = await open('optimum/llama/onnx/model.onnx');
    const prompt = await decoder.forward({ inputIds: [[1, 2, 3]], keep: 'last' });
    const first = await decoder.forward({ inputIds: [[4]], cache: prompt.cache });
    await decoder.forward({ inputIds: [[400]], cache: prompt.cache });
    const again = await decoder.forward({ inputIds: [[4]], cache: prompt.cache });
    expect(again.logits.data).toEqual(first.logits.data);
  });

  it('refuses a cache of another batch', async () => {
    const decoder = await open('optimum/llama/onnx/model.onnx');
    const { cache } = await decoder.forward({ inputIds: [[1], [2]] });
    await expect(decoder.forward({ inputIds: [[1]], cache })).rejects.toMatchObject({
      code: 'CACHE_MISMATCH',
    });
  });
});

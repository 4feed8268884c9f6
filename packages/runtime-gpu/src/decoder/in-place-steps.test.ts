import { afterEach, describe, expect, it } from 'vitest';
import { InPlaceCache } from '../kv/in-place-cache.js';
import { maxAbsDifference, testdata } from '../test/fixtures.js';
import { DecoderSession } from './decoder.js';

const opened: DecoderSession[] = [];
async function open(path: string, binding: 'native' | 'node' = 'native'): Promise<DecoderSession> {
  const decoder = await DecoderSession.open(testdata(path), { threads: 1, binding });
  opened.push(decoder);
  return decoder;
}
afterEach(async () => {
  await Promise.all(opened.splice(0).map((decoder) => decoder.dispose()));
});

const IDS = [7, 300, 12, 45, 9, 210, 33, 8, 101, 66, 5, 17];

describe.each(['genai-fp32/llama', 'genai-fp32/qwen2', 'genai-int4/llama'])('%s', (family) => {
  const path = `${family}/model.onnx`;

  it('is continued in place, with the bits that onnxruntime-node gives', async () => {
    const [native, node] = await Promise.all([open(path), open(path, 'node')]);
    let own = await native.forward({ inputIds: [IDS.slice(0, 5)], keep: 'last' });
    let other = await node.forward({ inputIds: [IDS.slice(0, 5)], keep: 'last' });
    expect(own.cache).toBeInstanceOf(InPlaceCache);
    const { buffers } = own.cache as InPlaceCache;
    for (const ids of [[IDS[5]!], [IDS[6]!, IDS[7]!], [IDS[8]!]]) {
      own = await native.forward({ inputIds: [ids], cache: own.cache });
      other = await node.forward({ inputIds: [ids], cache: other.cache });
      expect(own.logits).toEqual(other.logits);
      expect((own.cache as InPlaceCache).buffers).toBe(buffers);
    }
    expect(own.cache.mask).toEqual(other.cache.mask);
    expect(own.cache.tensors).toEqual(other.cache.tensors);
  });

  it('grows past any room that was made, without a change', async () => {
    const decoder = await open(path);
    const long = Array.from({ length: 240 }, (_, i) => (i * 37) % 500);
    const walk = async (capacity: number) => {
      let step = await decoder.forward({ inputIds: [long.slice(0, 2)], keep: 'last', capacity });
      const { buffers } = step.cache as InPlaceCache;
      const room = buffers.byteLength;
      for (const id of long.slice(2)) {
        step = await decoder.forward({ inputIds: [[id]], cache: step.cache, keep: 'last' });
      }
      expect((step.cache as InPlaceCache).buffers).toBe(buffers);
      return { step, grown: buffers.byteLength / room };
    };
    const grown = await walk(1);
    const roomy = await walk(long.length + 64);
    expect([grown.grown, roomy.grown]).toEqual([320 / 128, 1]);
    expect(grown.step.logits).toEqual(roomy.step.logits);
    expect(grown.step.cache.tensors).toEqual(roomy.step.cache.tensors);
  });

  it('is copied where an older cache goes on a second time, or at the same time', async () => {
    const decoder = await open(path);
    const prompt = await decoder.forward({ inputIds: [IDS], keep: 'last' });
    const step = (id: number) => decoder.forward({ inputIds: [[id]], cache: prompt.cache });
    const [a, b] = await Promise.all([step(1), step(2)]);
    const again = await step(1);
    expect(again.logits).toEqual(a.logits);
    expect(a.logits).not.toEqual(b.logits);
    const buffers = [prompt, a, b, again].map(({ cache }) => (cache as InPlaceCache).buffers);
    expect(new Set(buffers).size).toBe(3);
    expect(b.cache.tensors).not.toEqual(a.cache.tensors);
  });

  it('writes logits where it is told to, if they fit', async () => {
    const decoder = await open(path);
    const into = new Float32Array(512);
    const prompt = await decoder.forward({ inputIds: [IDS], into });
    const first = await decoder.forward({ inputIds: [[1]], cache: prompt.cache });
    const same = await decoder.forward({ inputIds: [[1]], cache: prompt.cache, into });
    expect(prompt.logits.data.buffer).not.toBe(into.buffer);
    expect(same.logits.data.buffer).toBe(into.buffer);
    expect(same.logits).toEqual(first.logits);
    const next = await decoder.forward({ inputIds: [[2]], cache: first.cache, into });
    expect(next.logits.data).toEqual(same.logits.data);
    expect(next.logits.data).not.toEqual(first.logits.data);
  });

  it('is cut back, and says when a handle went with it', async () => {
    const decoder = await open(path);
    const prompt = await decoder.forward({ inputIds: [IDS.slice(0, 4)], keep: 'last' });
    const straight = await decoder.forward({ inputIds: [[20]], cache: prompt.cache });
    const fresh = await decoder.forward({ inputIds: [IDS.slice(0, 4)], keep: 'last' });
    const longer = await decoder.forward({ inputIds: [[1, 2, 3]], cache: fresh.cache });
    const cut = longer.cache.truncate(4);
    expect(cut.length).toBe(4);
    expect((cut as InPlaceCache).buffers).toBe((fresh.cache as InPlaceCache).buffers);
    const after = await decoder.forward({ inputIds: [[20]], cache: cut });
    expect(after.logits).toEqual(straight.logits);
    await expect(decoder.forward({ inputIds: [[4]], cache: longer.cache })).rejects.toMatchObject({
      code: 'CACHE_STALE',
    });
    expect(() => cut.truncate(5)).toThrow(expect.objectContaining({ code: 'CACHE_MISMATCH' }));
    // The prompt is as long as what is left: it still stands for the same tokens.
    const once = await decoder.forward({ inputIds: [[20]], cache: fresh.cache });
    expect(once.logits).toEqual(straight.logits);
    after.cache.dispose();
    await expect(decoder.forward({ inputIds: [[4]], cache: after.cache })).rejects.toMatchObject({
      code: 'CACHE_STALE',
    });
  });

  it('gives every row of a batch what it gets alone, whatever the lengths', async () => {
    const decoder = await open(path);
    const rows = [IDS, IDS.slice(0, 5), IDS.slice(3, 4)];
    const more = [[1], [2], [3]];
    const chunk = [[4, 5], [6], [7, 8, 9]];
    let batch = await decoder.forward({ inputIds: rows });
    const alone = await Promise.all(
      rows.map(async (row, i) => {
        const prompt = await decoder.forward({ inputIds: [row] });
        const step = await decoder.forward({ inputIds: [more[i]!], cache: prompt.cache });
        return [prompt, step, await decoder.forward({ inputIds: [chunk[i]!], cache: step.cache })] as const;
      }),
    );
    const same = (step: 0 | 1 | 2) => {
      const [, width, vocabulary] = batch.logits.dims;
      alone.forEach((results, row) => {
        const own = results[step].logits.data;
        const end = (row + 1) * width * vocabulary;
        const got = batch.logits.data.slice(end - own.length, end);
        expect(maxAbsDifference(got, own)).toBeLessThan(1e-4);
      });
    };
    same(0);
    batch = await decoder.forward({ inputIds: more, cache: batch.cache });
    same(1);
    batch = await decoder.forward({ inputIds: chunk, cache: batch.cache });
    expect(batch.logits.dims[1]).toBe(3);
    same(2);
    expect(batch.cache.mask.map((row) => row.reduce((a, b) => a + b))).toEqual([15, 7, 5]);
  });

  it('leaves a cache as it was when a step is aborted or fails', async () => {
    const decoder = await open(path);
    const prompt = await decoder.forward({ inputIds: [IDS], keep: 'last' });
    const aborted = AbortSignal.abort(new Error('enough'));
    await expect(decoder.forward({ inputIds: [[1]], cache: prompt.cache, signal: aborted })).rejects.toThrow(
      'enough',
    );
    await expect(decoder.forward({ inputIds: [[99999]], cache: prompt.cache })).rejects.toMatchObject({
      code: 'RUN_FAILED',
    });
    const peek = await decoder.forward({ inputIds: [[3]], cache: prompt.cache, returnCache: false });
    const step = await decoder.forward({ inputIds: [[3]], cache: prompt.cache });
    expect(step.logits).toEqual(peek.logits);
    expect((step.cache as InPlaceCache).buffers).toBe((prompt.cache as InPlaceCache).buffers);
  });
});

it('is not tried on a graph that joins past and present itself', async () => {
  const decoder = await open('optimum/llama/onnx/model.onnx');
  const { cache } = await decoder.forward({ inputIds: [IDS] });
  expect(cache).not.toBeInstanceOf(InPlaceCache);
  const cut = cache.truncate(5);
  const short = await decoder.forward({ inputIds: [IDS.slice(0, 5)] });
  const [a, b] = await Promise.all(
    [cut, short.cache].map((one) => decoder.forward({ inputIds: [[9]], cache: one })),
  );
  expect(maxAbsDifference(a!.logits.data, b!.logits.data)).toBeLessThan(1e-4);
  await expect(decoder.forward({ inputIds: [[9]], cache })).rejects.toMatchObject({ code: 'CACHE_STALE' });
});

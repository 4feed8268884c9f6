import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { DecoderSession } from '../decoder/decoder.js';
import { generate, generateTokens } from '../generate/generate.js';
import { PrefixCache } from '../generate/prefix-cache.js';
import { NativeSession } from '../session/native/native-session.js';
import { maxAbsDifference, testdata } from '../test/fixtures.js';
import { BatchedDecoder } from './batched-decoder.js';

describe.each(['genai-fp32/llama/model.onnx', 'genai-fp32/qwen2/model.onnx'])(
  'BatchedDecoder over %s',
  (path) => {
    let decoder: DecoderSession;
    beforeAll(async () => {
      decoder = await DecoderSession.open(testdata(path), { threads: 1 });
    });
    afterAll(() => decoder.dispose());

    const prompt = (seed: number, length: number) =>
      Array.from({ length }, (_, i) => (i * 37 + seed * 101) % 500);

    it('gives every sequence what it gets alone, whoever comes and goes', async () => {
      await fc.assert(
        fc.asyncProperty(
          fc.integer({ min: 1, max: 5 }),
          fc.integer({ min: 1, max: 20 }),
          fc.array(
            fc.record({
              length: fc.integer({ min: 1, max: 40 }),
              tokens: fc.integer({ min: 1, max: 12 }),
              delay: fc.nat({ max: 5 }),
              stop: fc.option(fc.nat({ max: 6 })),
            }),
            { minLength: 1, maxLength: 9 },
          ),
          async (slots, promptChunk, requests) => {
            const batched = await BatchedDecoder.over(decoder, { slots, promptChunk });
            const answers = await Promise.all(
              requests.map(async ({ length, tokens, delay, stop }, seed) => {
                for (let i = 0; i < delay; i++) await new Promise(setImmediate);
                const ids: number[] = [];
                for await (const { id } of generateTokens(batched, {
                  promptIds: prompt(seed, length),
                  maxTokens: tokens,
                })) {
                  ids.push(id);
                  if (ids.length === stop) break;
                }
                return ids;
              }),
            );
            expect([batched.sequences, batched.waiting]).toEqual([0, 0]);
            batched.dispose();
            for (const [seed, { length, tokens }] of requests.entries()) {
              const alone = await generate(decoder, { promptIds: prompt(seed, length), maxTokens: tokens });
              expect(answers[seed]).toEqual(alone.ids.slice(0, answers[seed]!.length));
            }
          },
        ),
        { numRuns: 15 },
      );
    });

    it('makes one run of the steps that are asked for together', async () => {
      const batched = await BatchedDecoder.over(decoder, { slots: 4 });
      const starts = await Promise.all(
        [0, 1, 2, 3].map((seed) => batched.forward({ inputIds: [prompt(seed, 5 + seed)], keep: 'last' })),
      );
      const runs = vi.spyOn(NativeSession.prototype, 'runBound');
      const steps = await Promise.all(
        starts.map(({ cache }, i) => batched.forward({ inputIds: [[i]], cache })),
      );
      expect(runs).toHaveBeenCalledTimes(1);
      runs.mockRestore();
      for (const [seed, { logits }] of steps.entries()) {
        const start = await decoder.forward({ inputIds: [prompt(seed, 5 + seed)] });
        const alone = await decoder.forward({ inputIds: [[seed]], cache: start.cache });
        expect(maxAbsDifference(logits.data, alone.logits.data)).toBeLessThan(1e-4);
      }
      batched.dispose();
    });

    it('lets nobody suffer for what another one does', async () => {
      const batched = await BatchedDecoder.over(decoder, { slots: 3 });
      const starts = await Promise.all(
        [1, 2, 3].map((seed) => batched.forward({ inputIds: [prompt(seed, 6)], keep: 'last' })),
      );
      const results = await Promise.allSettled(
        starts.map(({ cache }, i) => batched.forward({ inputIds: [[i === 1 ? 99999 : 7]], cache })),
      );
      expect(results.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled']);
      expect((results[1] as PromiseRejectedResult).reason).toMatchObject({ code: 'RUN_FAILED' });
      // The one that failed is where it was.
      const again = await batched.forward({ inputIds: [[7]], cache: starts[1]!.cache });
      const alone = await decoder.forward({ inputIds: [[...prompt(2, 6), 7]], keep: 'last' });
      expect(maxAbsDifference(again.logits.data, alone.logits.data)).toBeLessThan(1e-3);
      batched.dispose();
    });

    it('goes on from an older cache in a place of its own, cuts back, and waits for a place', async () => {
      const batched = await BatchedDecoder.over(decoder, { slots: 2 });
      const start = await batched.forward({ inputIds: [prompt(1, 8)], keep: 'last' });
      const first = await batched.forward({ inputIds: [[5]], cache: start.cache });
      const second = await batched.forward({ inputIds: [[5]], cache: start.cache });
      expect(maxAbsDifference(first.logits.data, second.logits.data)).toBeLessThan(1e-6);
      expect(batched.sequences).toBe(2);
      const third = batched.forward({ inputIds: [prompt(2, 3)], keep: 'last' });
      await new Promise((done) => setTimeout(done, 20));
      expect(batched.waiting).toBe(1);
      second.cache.dispose();
      (await third).cache.dispose();
      const cut = first.cache.truncate(4);
      await expect(batched.forward({ inputIds: [[1]], cache: first.cache })).rejects.toMatchObject({
        code: 'CACHE_STALE',
      });
      const short = await batched.forward({ inputIds: [prompt(1, 8).slice(4)], cache: cut });
      const whole = await decoder.forward({ inputIds: [prompt(1, 8)] });
      const tail = whole.logits.data.slice(-short.logits.data.length);
      expect(maxAbsDifference(short.logits.data, tail)).toBeLessThan(1e-3);
      batched.dispose();
      await expect(batched.forward({ inputIds: [[1]] })).rejects.toMatchObject({ code: 'SESSION_DISPOSED' });
    });

    it('frees the place of a sequence that is aborted', async () => {
      const batched = await BatchedDecoder.over(decoder, { slots: 1, promptChunk: 4 });
      const controller = new AbortController();
      const aborted = batched.forward({
        inputIds: [prompt(1, 200)],
        keep: 'last',
        signal: controller.signal,
      });
      setTimeout(() => controller.abort(new Error('enough')), 5);
      await expect(aborted).rejects.toThrow('enough');
      const next = await batched.forward({ inputIds: [prompt(2, 4)], keep: 'last' });
      expect(next.logits.dims).toEqual([1, 1, 512]);
      batched.dispose();
    });

    it('keeps caches between turns', async () => {
      const batched = await BatchedDecoder.over(decoder, { slots: 2 });
      const cache = new PrefixCache();
      const first = await generate(batched, { promptIds: prompt(1, 10), maxTokens: 5, cache });
      const promptIds = [...prompt(1, 10), ...first.ids, 3, 4];
      const second = await generate(batched, { promptIds, maxTokens: 5, cache });
      expect(second.cachedTokens).toBeGreaterThanOrEqual(14);
      expect(second.ids).toEqual((await generate(decoder, { promptIds, maxTokens: 5 })).ids);
      cache.dispose();
      expect(batched.sequences).toBe(0);
      batched.dispose();
    });
  },
);

it('refuses graphs that do not append in place, and options that make no sense', async () => {
  const plain = await DecoderSession.open(testdata('optimum/llama/onnx/model.onnx'), { threads: 1 });
  await expect(BatchedDecoder.over(plain)).rejects.toMatchObject({ code: 'BATCH_UNSUPPORTED' });
  await expect(BatchedDecoder.over(plain, { slots: 0 })).rejects.toMatchObject({ code: 'BATCH_OPTIONS' });
  await plain.dispose();
});

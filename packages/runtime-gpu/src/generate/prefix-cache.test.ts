import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { FakeModel, hashedRule } from '../test/fake-model.js';
import { type GenerateOptions, generate, generateTokens } from './generate.js';
import { PrefixCache } from './prefix-cache.js';

const rule = hashedRule(6, 5);

describe('PrefixCache', () => {
  it('changes no answer, whatever the turns, and keeps one cache for each model', async () => {
    const turns = fc.array(
      fc.record({
        keep: fc.nat(20),
        more: fc.array(fc.nat(5), { minLength: 1, maxLength: 5 }),
        maxTokens: fc.nat(8),
        promptLogprobs: fc.boolean(),
        drafts: fc.constantFrom(undefined, 'prompt', 'model'),
      }),
      { minLength: 1, maxLength: 6 },
    );
    await fc.assert(
      fc.asyncProperty(turns, async (all) => {
        const [model, drafter] = [new FakeModel(rule), new FakeModel(hashedRule(6, 6))];
        const [cache, drafterCache] = [new PrefixCache(), new PrefixCache()];
        let text: number[] = [];
        for (const { keep, more, maxTokens, promptLogprobs, drafts } of all) {
          const promptIds = [...text.slice(0, keep), ...more];
          const base = { promptIds, maxTokens, promptLogprobs, logprobs: 1 };
          const kept = cache.ids;
          model.calls.length = 0;
          const options: GenerateOptions = {
            ...base,
            cache,
            ...(drafts === undefined
              ? {}
              : {
                  speculate: {
                    drafter: drafts === 'prompt' ? 'prompt' : drafter,
                    adapt: false,
                    cache: drafterCache,
                  },
                }),
          };
          const { speculation: _, cachedTokens, ...got } = await generate(model, options);
          expect(got).toEqual(await generate(new FakeModel(rule), base));
          if (maxTokens > 0 && !promptLogprobs) {
            let shared = 0;
            while (shared < promptIds.length - 1 && kept[shared] === promptIds[shared]) shared++;
            expect(cachedTokens).toBe(shared);
            expect(model.calls[0]).toBe(promptIds.length - shared);
          }
          text = [...promptIds, ...got.ids];
          expect(model.live).toBeLessThanOrEqual(1);
          expect(drafter.live).toBeLessThanOrEqual(1);
        }
        cache.dispose();
        drafterCache.dispose();
        expect([model.live, drafter.live, cache.ids.length]).toEqual([0, 0, 0]);
      }),
      { numRuns: 200 },
    );
  });

  it('is handed back by a generation that is left or stopped', async () => {
    const model = new FakeModel(rule);
    const cache = new PrefixCache();
    for await (const _ of generateTokens(model, { promptIds: [1, 2, 3], maxTokens: 9, cache })) break;
    expect(cache.ids).toEqual([1, 2, 3]);
    const stop = new AbortController();
    const onToken = () => stop.abort(new Error('enough'));
    const run = generate(model, {
      promptIds: [1, 2, 3, 4],
      maxTokens: 9,
      cache,
      signal: stop.signal,
      onToken,
    });
    await expect(run).rejects.toThrow('enough');
    expect(cache.ids).toEqual([1, 2, 3, 4]);
    expect(model.live).toBe(1);
    cache.dispose();
  });

  it('serves one of two generations at the same time', async () => {
    const model = new FakeModel(rule);
    using cache = new PrefixCache();
    const run = (last: number) => generate(model, { promptIds: [1, 2, last], maxTokens: 5, cache });
    await run(0);
    const both = await Promise.all([run(3), run(4)]);
    expect(both.map(({ cachedTokens }) => cachedTokens).sort()).toEqual([0, 2]);
    expect(model.live).toBe(1);
  });

  it('frees what another model left', async () => {
    const [a, b] = [new FakeModel(rule), new FakeModel(rule)];
    using cache = new PrefixCache();
    await generate(a, { promptIds: [1, 2], maxTokens: 2, cache });
    const { cachedTokens } = await generate(b, { promptIds: [1, 2], maxTokens: 2, cache });
    expect([cachedTokens, a.live, b.live]).toEqual([0, 0, 1]);
  });

  it('keeps whole states of a model that cannot go back, and no part of them', async () => {
    const model = new FakeModel(rule, undefined, false);
    using cache = new PrefixCache();
    await generate(model, { promptIds: [1, 2], maxTokens: 2, cache });
    const kept = [...cache.ids];
    expect((await generate(model, { promptIds: [...kept, 4], maxTokens: 1, cache })).cachedTokens).toBe(3);
    expect((await generate(model, { promptIds: [1, 5], maxTokens: 1, cache })).cachedTokens).toBe(0);
    expect(model.live).toBe(1);
  });
});

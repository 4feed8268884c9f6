import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { DecoderSession } from '../decoder/decoder.js';
import { golden, testdata } from '../test/fixtures.js';
import { type GenerateOptions, generate, generateTokens } from './generate.js';
import { Logprobs } from './logprobs.js';
import { PrefixCache } from './prefix-cache.js';
import { argmax } from './sampling.js';
import type { TokenConstraint } from './shaping.js';

const promptIds = golden('llama').ids.slice(0, 8);

describe('generate', () => {
  let decoder: DecoderSession;
  beforeAll(async () => {
    decoder = await DecoderSession.open(testdata('optimum/llama/onnx/model.onnx'), { threads: 1 });
  });
  afterAll(() => decoder.dispose());

  it('without temperature takes the best token each time, as without a cache', async () => {
    const { ids, finishReason } = await generate(decoder, { promptIds, maxTokens: 6 });
    expect(finishReason).toBe('length');
    const expected: number[] = [];
    for (let i = 0; i < 6; i++) {
      const { logits } = await decoder.forward({ inputIds: [[...promptIds, ...expected]], keep: 'last' });
      expected.push(argmax(logits.data));
    }
    expect(ids).toEqual(expected);
  });

  it('stops at an end token and hands out each token as it comes', async () => {
    const all = await generate(decoder, { promptIds, maxTokens: 12, temperature: 1, seed: 5 });
    const end = all.ids[4]!;
    const seen: number[] = [];
    const stopped = await generate(decoder, {
      promptIds,
      maxTokens: 12,
      temperature: 1,
      seed: 5,
      eosIds: [end],
      onToken: (id) => seen.push(id),
    });
    expect(stopped.finishReason).toBe('stop');
    expect(stopped.ids).toEqual(all.ids.slice(0, all.ids.indexOf(end) + 1));
    expect(seen).toEqual(stopped.ids);
  });

  it('repeats itself for one seed and not for another', async () => {
    const run = (seed: number) => generate(decoder, { promptIds, maxTokens: 16, temperature: 1, seed });
    expect(await run(1)).toEqual(await run(1));
    expect(await run(1)).not.toEqual(await run(2));
  });

  it('stops when it is aborted', async () => {
    const controller = new AbortController();
    const seen: number[] = [];
    const run = generate(decoder, {
      promptIds,
      maxTokens: 1000,
      signal: controller.signal,
      onToken: (id) => {
        seen.push(id);
        if (seen.length === 3) controller.abort(new Error('enough'));
      },
    });
    await expect(run).rejects.toThrow('enough');
    expect(seen).toHaveLength(3);
  });

  it('generates nothing for no tokens', async () => {
    expect(await generate(decoder, { promptIds, maxTokens: 0 })).toEqual({ ids: [], finishReason: 'length' });
  });

  it('hands out tokens one by one, the reason to end with the last, and the whole at the end', async () => {
    const options = { promptIds, maxTokens: 5, logprobs: 3 };
    const tokens = generateTokens(decoder, options);
    const seen = [];
    let step = await tokens.next();
    for (; !step.done; step = await tokens.next()) seen.push(step.value);
    expect(seen.map(({ finishReason }) => finishReason)).toEqual([...new Array(4).fill(undefined), 'length']);
    const whole = await generate(decoder, options);
    expect(step.value).toEqual(whole);
    expect(seen.map(({ id, logprob, top }) => ({ id, logprob, top }))).toEqual(whole.logprobs);
    expect(whole.logprobs!.map(({ top }) => top![0]!.id)).toEqual(whole.ids);
  });

  it("gives log-probabilities of the model's own distribution, of the prompt, too", async () => {
    const options = { promptIds, maxTokens: 1, temperature: 0.3, topK: 1, logprobs: 2, promptLogprobs: true };
    const { logits } = await decoder.forward({ inputIds: [promptIds] });
    const [, count, vocabulary] = logits.dims;
    const rows = Array.from({ length: count }, (_, i) => {
      return new Logprobs(logits.data.subarray(i * vocabulary, (i + 1) * vocabulary));
    });
    const logitBias = new Map([[argmax(logits.data.subarray(-vocabulary)), -100]]);
    const { promptLogprobs, logprobs } = await generate(decoder, { ...options, logitBias });
    expect(promptLogprobs![0]).toEqual({ id: promptIds[0] });
    promptLogprobs!.slice(1).forEach(({ id, logprob, top }, i) => {
      expect(id).toBe(promptIds[i + 1]);
      expect(logprob).toBeCloseTo(rows[i]!.of(id), 4);
      expect(top![0]!.id).toBe(rows[i]!.top(1)[0]!.id);
    });
    const [first] = logprobs!;
    expect(first!.logprob).toBeCloseTo(rows.at(-1)!.of(first!.id), 4);
    expect(first!.top![1]).toEqual({ id: first!.id, logprob: first!.logprob });
    expect((await generate(decoder, { ...options, maxTokens: 0 })).promptLogprobs).toHaveLength(count);
  });

  it('follows a constraint', async () => {
    const accepted: number[] = [];
    // Even and odd tokens in turn.
    const constraint: TokenConstraint = {
      allowed: () => new Uint32Array(16).fill(accepted.length % 2 === 0 ? 0x55555555 : 0xaaaaaaaa),
      accept: (id) => accepted.push(id),
    };
    for (const temperature of [0, 1.5]) {
      accepted.length = 0;
      const { ids } = await generate(decoder, { promptIds, maxTokens: 9, temperature, constraint });
      expect(accepted).toEqual(ids);
      expect(ids.map((id) => id % 2)).toEqual([0, 1, 0, 1, 0, 1, 0, 1, 0]);
    }
    const speculate = { drafter: decoder, adapt: false, maxDraft: 3 };
    accepted.length = 0;
    const { ids, speculation } = await generate(decoder, { promptIds, maxTokens: 9, constraint, speculate });
    expect(accepted).toEqual(ids);
    expect(speculation!.drafted).toBeGreaterThan(speculation!.accepted);
    const nothing: TokenConstraint = { allowed: () => new Uint32Array(16), accept: () => {} };
    await expect(generate(decoder, { promptIds, maxTokens: 1, constraint: nothing })).rejects.toMatchObject({
      code: 'NO_TOKEN_LEFT',
    });
  });

  it('penalises what was there already', async () => {
    const plain = await generate(decoder, { promptIds, maxTokens: 30 });
    expect(new Set(plain.ids).size).toBeLessThan(30);
    const { ids } = await generate(decoder, { promptIds, maxTokens: 30, repetitionPenalty: 100 });
    expect(new Set([...promptIds, ...ids]).size).toBe(new Set(promptIds).size + 30);
    const banned = new Map(plain.ids.map((id) => [id, -100]));
    const other = await generate(decoder, { promptIds, maxTokens: 30, logitBias: banned });
    expect(other.ids.filter((id) => banned.has(id))).toEqual([]);
  });

  it.each<[string, Partial<GenerateOptions>]>([
    ['maxTokens', { maxTokens: -1 }],
    ['maxTokens', { maxTokens: Number.NaN }],
    ['logprobs', { logprobs: 1.5 }],
    ['seed', { seed: 0.5 }],
    ['repetitionPenalty', { repetitionPenalty: 0 }],
    ['presencePenalty', { presencePenalty: 2.1 }],
    ['frequencyPenalty', { frequencyPenalty: Number.NaN }],
    ['minP', { minP: 1.1 }],
    ['logitBias', { logitBias: new Map([[1, 101]]) }],
    ['logitBias', { logitBias: new Map([[-1, 1]]) }],
    ['speculate.maxDraft', { speculate: { drafter: 'prompt', maxDraft: 0 } }],
    ['speculate.ngram', { speculate: { drafter: 'prompt', ngram: 17 } }],
  ])('refuses %s that makes no sense', async (name, bad) => {
    await expect(generate(decoder, { promptIds, maxTokens: 1, ...bad })).rejects.toMatchObject({
      code: 'SAMPLING_INVALID',
      message: expect.stringContaining(`"${name}"`),
    });
  });

  it('drafts nothing for a model that cannot go back', async () => {
    const fixed = { forward: decoder.forward, signature: { cache: [{ sequenceAxis: undefined }] } };
    const options = { promptIds, maxTokens: 1, speculate: { drafter: 'prompt' } } as const;
    await expect(generate(fixed, options)).rejects.toMatchObject({ code: 'SPECULATION_UNSUPPORTED' });
  });
});

describe.each([
  ['optimum/llama/onnx/model.onnx', 'llama'],
  ['optimum/gpt2/onnx/model.onnx', 'gpt2'],
  ['genai-fp32/llama/model.onnx', 'llama'],
  ['genai-int4/llama/model.onnx', 'llama'],
] as const)('%s', (path, family) => {
  const ids = golden(family).ids.slice(0, 10);
  let decoder: DecoderSession;
  beforeAll(async () => {
    decoder = await DecoderSession.open(testdata(path), { threads: 1 });
  });
  afterAll(() => decoder.dispose());

  it('writes the same with drafts as without', async () => {
    for (const sampling of [{}, { temperature: 1, seed: 3 }, { repetitionPenalty: 1.2 }]) {
      const options = { promptIds: [...ids, ...ids], maxTokens: 60, ...sampling };
      const plain = await generate(decoder, options);
      const speculate = { drafter: 'prompt', adapt: false } as const;
      const { speculation, ids: got } = await generate(decoder, { ...options, speculate });
      expect(speculation!.drafted).toBeGreaterThan(0);
      // Ties would be a reason to differ; these models have none here.
      expect([speculation!.ties, got]).toEqual([0, plain.ids]);
    }
    const options = { promptIds: ids, maxTokens: 30 };
    const plain = await generate(decoder, options);
    const speculate = { drafter: decoder, adapt: false, maxDraft: 4 };
    const { speculation, ids: got } = await generate(decoder, { ...options, speculate });
    expect(got).toEqual(plain.ids);
    expect(speculation).toMatchObject({ passes: 6, plainSteps: 0, drafted: 23, accepted: 23 });
  });

  it('writes the same while another session drafts', async () => {
    const drafter = await DecoderSession.open(testdata(path), { threads: 1 });
    try {
      using cache = new PrefixCache();
      for (const sampling of [{}, { temperature: 1, seed: 3 }, { repetitionPenalty: 1.2 }]) {
        const options = { promptIds: ids, maxTokens: 60, ...sampling };
        const plain = await generate(decoder, options);
        const speculate = { drafter, asynchronous: true, adapt: false, cache };
        const { speculation, ids: got } = await generate(decoder, { ...options, speculate });
        expect([speculation!.ties, got]).toEqual([0, plain.ids]);
        expect(speculation!.plainSteps + speculation!.passes + speculation!.accepted).toBeGreaterThanOrEqual(
          58,
        );
      }
    } finally {
      await drafter.dispose();
    }
  });

  it('goes on from an earlier turn as from the whole prompt', async () => {
    using cache = new PrefixCache();
    const first = await generate(decoder, { promptIds: ids, maxTokens: 6, cache });
    expect(first.cachedTokens).toBe(0);
    expect(cache.ids).toEqual([...ids, ...first.ids.slice(0, -1)]);
    const turns = [
      { promptIds: [...ids, ...first.ids, 5, 6], cachedTokens: ids.length + 5 },
      // Another continuation; then one that the cache holds whole, of which the last token is read again.
      { promptIds: [...ids.slice(0, 7), 9, 9], cachedTokens: 7 },
      { promptIds: ids.slice(0, 7), cachedTokens: 6 },
      { promptIds: [400, 3], cachedTokens: 0 },
    ];
    for (const { promptIds: prompt, cachedTokens } of turns) {
      const options = { promptIds: prompt, maxTokens: 4 };
      const got = await generate(decoder, { ...options, cache });
      expect(got).toEqual({ ...(await generate(decoder, options)), cachedTokens });
    }
  });
});

import fc from 'fast-check';
import { describe, expect, it, vi } from 'vitest';
import { anyClock } from '../test/any-clock.js';
import { FakeModel, hashedRule, type Rule } from '../test/fake-model.js';
import type { SpeculateOptions } from './drafts/options.js';
import { type GenerateOptions, generate, generateTokens } from './generate.js';

const VOCABULARY = 5;
const worlds = fc.record({
  target: fc.nat(1e6),
  drafter: fc.nat(1e6),
  /** Whether the drafter is the target itself, mostly. */
  alike: fc.boolean(),
  promptIds: fc.array(fc.nat(VOCABULARY - 1), { minLength: 1, maxLength: 8 }),
  maxTokens: fc.integer({ min: 1, max: 30 }),
  eosIds: fc.subarray([0, 1], { maxLength: 2 }),
  maxDraft: fc.integer({ min: 1, max: 9 }),
  ngram: fc.integer({ min: 1, max: 4 }),
  adapt: fc.boolean(),
  times: fc.array(fc.integer({ min: 0, max: 20 }), { minLength: 1, maxLength: 12 }),
  penalties: fc.record(
    {
      repetitionPenalty: fc.double({ min: 0.7, max: 1.5, noNaN: true }),
      presencePenalty: fc.double({ min: -2, max: 2, noNaN: true }),
      frequencyPenalty: fc.double({ min: -2, max: 2, noNaN: true }),
      logitBias: fc.constantFrom(new Map([[2, -100]]), new Map([[3, 2]])),
    },
    { requiredKeys: [] },
  ),
});
type World = typeof worlds extends fc.Arbitrary<infer T> ? T : never;

function rules(world: World): { target: Rule; drafter: Rule } {
  const target = hashedRule(VOCABULARY, world.target);
  const other = hashedRule(VOCABULARY, world.drafter);
  const drafter: Rule = (context) => (world.alike && context.length % 5 !== 0 ? target : other)(context);
  return { target, drafter };
}

function optionsOf(world: World): GenerateOptions {
  const { promptIds, maxTokens, eosIds, penalties } = world;
  return { promptIds, maxTokens, eosIds, ...penalties };
}

const speculateOf = ({ maxDraft, ngram, adapt, times }: World): Omit<SpeculateOptions, 'drafter'> => ({
  maxDraft,
  ngram,
  adapt,
  clock: anyClock(times),
});

describe('greedy decoding with drafts', () => {
  it('from a model gives what it gives without, whatever the drafter', async () => {
    await fc.assert(
      fc.asyncProperty(worlds, async (world) => {
        const { target, drafter } = rules(world);
        const plain = await generate(new FakeModel(target), optionsOf(world));
        const [model, small] = [new FakeModel(target), new FakeModel(drafter)];
        const speculate = { ...speculateOf(world), drafter: small };
        const { speculation, ...got } = await generate(model, { ...optionsOf(world), speculate });
        expect(got).toEqual(plain);
        const { passes, plainSteps, accepted, drafted } = speculation!;
        expect(accepted).toBeLessThanOrEqual(drafted);
        // The prompt's pass gives one token, each step one, each checking pass one more than it accepts - unless
        // an end token was drafted.
        const tokens = 1 + plainSteps + passes + accepted;
        expect([tokens, tokens - 1]).toContain(got.ids.length);
        expect(model.calls).toHaveLength(1 + plainSteps + passes);
        expect([model.live, small.live]).toEqual([0, 0]);
      }),
      { numRuns: 300 },
    );
  });

  it('from the prompt gives what it gives without', async () => {
    await fc.assert(
      fc.asyncProperty(worlds, async (world) => {
        const { target } = rules(world);
        const plain = await generate(new FakeModel(target), { ...optionsOf(world), logprobs: 2 });
        const model = new FakeModel(target);
        const speculate: SpeculateOptions = { ...speculateOf(world), drafter: 'prompt' };
        const { speculation, ...got } = await generate(model, {
          ...optionsOf(world),
          logprobs: 2,
          speculate,
        });
        expect(got).toEqual(plain);
        expect(model.live).toBe(0);
        if (!world.adapt && got.ids.length > 20) expect(speculation!.drafted).toBeGreaterThan(0);
      }),
      { numRuns: 300 },
    );
  });

  it('needs one pass for a draft and what follows it', async () => {
    const rule = hashedRule(VOCABULARY, 3);
    const [model, drafter] = [new FakeModel(rule), new FakeModel(rule)];
    const { ids, speculation } = await generate(model, {
      promptIds: [1, 2],
      maxTokens: 13,
      speculate: { drafter, maxDraft: 5, adapt: false },
    });
    expect(ids).toHaveLength(13);
    expect(model.calls).toEqual([2, 6, 6]);
    expect(speculation).toEqual({
      passes: 2,
      plainSteps: 0,
      declined: 0,
      drafted: 10,
      accepted: 10,
      ties: 0,
    });
    // The prompt and the first token; then the last draft and the token behind it.
    expect(drafter.calls).toEqual([3, 1, 1, 1, 1, 2, 1, 1, 1, 1]);
  });

  it('drafts no more than may come, and nothing behind an end token', async () => {
    const cycle: Rule = (context) =>
      Float32Array.from({ length: 4 }, (_, id) => (id === (context.at(-1)! + 1) % 4 ? 5 : 0));
    const speculate = () => ({ drafter: new FakeModel(cycle), maxDraft: 8, adapt: false });
    const short = new FakeModel(cycle);
    const { ids } = await generate(short, { promptIds: [0], maxTokens: 4, speculate: speculate() });
    expect(ids).toEqual([1, 2, 3, 0]);
    expect(short.calls).toEqual([1, 3]);
    const ended = new FakeModel(cycle);
    const run = { promptIds: [0], maxTokens: 40, eosIds: [3] };
    expect(await generate(ended, { ...run, speculate: speculate() })).toMatchObject({
      ids: [1, 2, 3],
      finishReason: 'stop',
      speculation: { drafted: 2, accepted: 2 },
    });
    expect(ended.calls).toEqual([1, 3]);
  });

  it('counts the places where rounding could have decided', async () => {
    // Two tokens are all but equally likely: passes over several positions see them the other way round.
    const rule =
      (several: boolean): Rule =>
      () =>
        Float32Array.of(several ? 1 : 1.0001, several ? 1.0001 : 1, -5);
    let several = false;
    const model = new FakeModel(
      (context) => rule(several)(context),
      (positions) => {
        several = positions > 1;
      },
    );
    const options = { promptIds: [2], maxTokens: 8 };
    const plain = await generate(model, options);
    expect(plain.ids).toEqual(new Array(8).fill(0));
    const { ids, speculation } = await generate(model, {
      ...options,
      speculate: { drafter: 'prompt', maxDraft: 2, adapt: false },
    });
    expect(ids).not.toEqual(plain.ids);
    expect(speculation!.ties).toBeGreaterThanOrEqual(ids.filter((id) => id === 1).length);
    const clear = await generate(new FakeModel(() => Float32Array.of(1, 1.01, -5)), {
      ...options,
      speculate: { drafter: 'prompt', adapt: false },
    });
    expect(clear.speculation!.passes).toBeGreaterThan(0);
    expect(clear.speculation!.ties).toBe(0);
  });

  it('stops drafting where it costs more than it brings', async () => {
    let now = 0;
    const rule = hashedRule(50, 9, 3);
    const slow = (positions: number) => {
      now += 10 * positions;
    };
    const drafter = new FakeModel(hashedRule(50, 10, 3));
    const { speculation } = await generate(new FakeModel(rule, slow), {
      promptIds: [1],
      maxTokens: 300,
      speculate: { drafter, clock: () => now },
    });
    expect(speculation!.declined).toBeGreaterThan(250);
    expect(speculation!.passes).toBeGreaterThan(2);
    expect(speculation!.passes).toBeLessThan(15);
  });
});

describe('the pace', () => {
  it('is known from the generation before', async () => {
    let now = 0;
    const clock = vi.spyOn(performance, 'now').mockImplementation(() => now);
    try {
      const step = (cost: number) => () => {
        now += cost;
      };
      const rule = hashedRule(50, 9, 3);
      const model = new FakeModel(rule, step(10));
      const drafter = new FakeModel(rule, step(1));
      const run = async () => {
        const options = { promptIds: [1, 2], maxTokens: 30, speculate: { drafter } };
        return (await generate(model, options)).speculation!;
      };
      const [first, second] = [await run(), await run()];
      expect(first.declined).toBe(1);
      expect(second.declined).toBe(0);
      expect(second.passes).toBeLessThanOrEqual(first.passes);
    } finally {
      clock.mockRestore();
    }
  });
});

describe('sampling with drafts', () => {
  it('from the prompt gives the very tokens that the seed gives without', async () => {
    await fc.assert(
      fc.asyncProperty(worlds, fc.nat(99), fc.constantFrom(0.5, 1, 2), async (world, seed, temperature) => {
        const { target } = rules(world);
        const options = { ...optionsOf(world), seed, temperature, topP: 0.95 };
        const plain = await generate(new FakeModel(target), options);
        const speculate: SpeculateOptions = { ...speculateOf(world), drafter: 'prompt' };
        const got = await generate(new FakeModel(target), { ...options, speculate });
        expect(got.ids).toEqual(plain.ids);
      }),
      { numRuns: 300 },
    );
  });

  it('from a model repeats itself for a seed', async () => {
    const run = async (seed: number) => {
      const drafter = new FakeModel(hashedRule(6, 2));
      const options = { promptIds: [1], maxTokens: 60, temperature: 1, seed };
      return (await generate(new FakeModel(hashedRule(6, 1)), { ...options, speculate: { drafter } })).ids;
    };
    expect(await run(4)).toEqual(await run(4));
    expect(await run(4)).not.toEqual(await run(5));
  });

  // Chi-square with 4³ - 1 = 63 degrees of freedom: 103.4 is passed once in a thousand times by chance.
  it.each([
    ['at temperature 1', {}],
    ['cut off by top-p', { topP: 0.8, temperature: 1.3 }],
    ['by top-k and min-p', { topK: 3, minP: 0.05 }],
    [
      'with penalties and bias',
      { presencePenalty: 0.7, repetitionPenalty: 1.3, logitBias: new Map([[1, 0.5]]) },
    ],
  ] as const)('from a model keeps the distribution: %s', async (_name, sampling) => {
    const target = hashedRule(4, 11, 2, 1.2);
    const drafter = hashedRule(4, 12, 2, 1.2);
    const options = { promptIds: [2], maxTokens: 3, temperature: 1, ...sampling };
    const counts = { plain: new Map<string, number>(), drafted: new Map<string, number>() };
    const draws = 6000;
    let accepted = 0;
    let drafted = 0;
    for (let seed = 0; seed < draws; seed++) {
      const plain = await generate(new FakeModel(target), { ...options, seed });
      const speculate = { drafter: new FakeModel(drafter), maxDraft: 2, adapt: false };
      const got = await generate(new FakeModel(target), { ...options, seed: seed + draws, speculate });
      accepted += got.speculation!.accepted;
      drafted += got.speculation!.drafted;
      for (const [map, { ids }] of [
        [counts.plain, plain],
        [counts.drafted, got],
      ] as const) {
        map.set(ids.join(), (map.get(ids.join()) ?? 0) + 1);
      }
    }
    // Both happened often enough for the test to say something.
    expect(accepted).toBeGreaterThan(0.3 * drafted);
    expect(drafted - accepted).toBeGreaterThan(1000);
    // Of two samples of one size: Σ (a - b)² / (a + b).
    let statistic = 0;
    for (const key of new Set([...counts.plain.keys(), ...counts.drafted.keys()])) {
      const [a, b] = [counts.plain.get(key) ?? 0, counts.drafted.get(key) ?? 0];
      statistic += (a - b) ** 2 / (a + b);
    }
    expect(statistic).toBeLessThan(103.4);
  });
});

describe('an end in the middle', () => {
  const rule = hashedRule(VOCABULARY, 3);
  const setup = () => {
    const models = [new FakeModel(rule), new FakeModel(rule)] as const;
    const speculate = { drafter: models[1], maxDraft: 6, adapt: false };
    return { models, options: { promptIds: [1, 2], maxTokens: 100, speculate } };
  };

  it('by an abort between tokens of one draft hands out no more', async () => {
    const { models, options } = setup();
    const stop = new AbortController();
    const seen: number[] = [];
    const run = generate(models[0], {
      ...options,
      signal: stop.signal,
      onToken: (id) => {
        seen.push(id);
        if (seen.length === 4) stop.abort(new Error('enough'));
      },
    });
    await expect(run).rejects.toThrow('enough');
    expect(seen).toHaveLength(4);
    expect(models[0].calls).toEqual([2, 7]);
    expect(models.map(({ live }) => live)).toEqual([0, 0]);
  });

  it('by an abort while the drafter or the model computes', async () => {
    for (const at of [0, 1, 2, 3, 5, 8, 9]) {
      const stop = new AbortController();
      let passes = 0;
      const step = () => {
        if (passes++ === at) stop.abort(new Error('enough'));
      };
      const models = [new FakeModel(rule, step), new FakeModel(rule, step)] as const;
      const speculate = { drafter: models[1], maxDraft: 3, adapt: false };
      const options = { promptIds: [1, 2], maxTokens: 100, speculate, signal: stop.signal };
      await expect(generate(models[0], options)).rejects.toThrow('enough');
      expect(models[0].calls.length + models[1].calls.length).toBe(at + 1);
      expect(models.map(({ live }) => live)).toEqual([0, 0]);
    }
  });

  it('by a reader who leaves', async () => {
    const { models, options } = setup();
    for await (const _ of generateTokens(models[0], options)) break;
    for await (const { id } of generateTokens(models[0], options)) if (id === 4) break;
    expect(models.map(({ live }) => live)).toEqual([0, 0]);
  });

  it('by a model that fails', async () => {
    let passes = 0;
    const failing = new FakeModel(rule, () => {
      if (++passes === 3) throw new Error('out of memory');
    });
    const drafter = new FakeModel(rule);
    const speculate = { drafter, maxDraft: 2, adapt: false };
    await expect(generate(failing, { promptIds: [1], maxTokens: 50, speculate })).rejects.toThrow(
      'out of memory',
    );
    expect([failing.live, drafter.live]).toEqual([0, 0]);
  });
});

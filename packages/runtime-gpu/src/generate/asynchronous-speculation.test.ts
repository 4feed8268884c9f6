import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { anyClock } from '../test/any-clock.js';
import { FakeModel, hashedRule, type Rule } from '../test/fake-model.js';
import type { SpeculateOptions } from './drafts/options.js';
import { type GenerateOptions, generate, generateTokens } from './generate.js';
import { PrefixCache } from './prefix-cache.js';

const VOCABULARY = 5;

/** Steps that take so many turns of the event loop, one number after the other. */
function turns(counts: readonly number[]): () => Promise<void> {
  let i = 0;
  return async () => {
    for (let left = counts[i++ % counts.length]!; left > 0; left--) await turn();
  };
}

const turn = () => new Promise((resolve) => setImmediate(resolve));

const durations = fc.array(fc.integer({ min: 0, max: 6 }), { minLength: 1, maxLength: 8 });
const worlds = fc.record({
  target: fc.nat(1e6),
  drafter: fc.nat(1e6),
  /** How often the drafter is wrong: in one of so many places. */
  wrongIn: fc.integer({ min: 1, max: 12 }),
  /** The drafter's vocabulary is padded by so much. */
  padding: fc.integer({ min: 0, max: 3 }),
  targetTurns: durations,
  drafterTurns: durations,
  readerTurns: durations,
  promptIds: fc.array(fc.nat(VOCABULARY - 1), { minLength: 1, maxLength: 8 }),
  maxTokens: fc.integer({ min: 1, max: 40 }),
  eosIds: fc.subarray([0, 1], { maxLength: 2 }),
  maxDraft: fc.integer({ min: 1, max: 9 }),
  adapt: fc.boolean(),
  times: fc.array(fc.integer({ min: 0, max: 20 }), { minLength: 1, maxLength: 12 }),
  sampling: fc.record(
    {
      temperature: fc.constantFrom(0.5, 1, 2),
      seed: fc.nat(99),
      topP: fc.constantFrom(0.8, 0.95),
      repetitionPenalty: fc.double({ min: 0.7, max: 1.5, noNaN: true }),
      frequencyPenalty: fc.double({ min: -2, max: 2, noNaN: true }),
      logitBias: fc.constantFrom(new Map([[2, -100]]), new Map([[3, 2]])),
    },
    { requiredKeys: [] },
  ),
});
type World = typeof worlds extends fc.Arbitrary<infer T> ? T : never;

function rulesOf({ target, drafter, wrongIn, padding }: World): { right: Rule; near: Rule } {
  const right = hashedRule(VOCABULARY, target);
  const other = hashedRule(VOCABULARY, drafter);
  const near: Rule = (context) => {
    const logits = (context.length % wrongIn === 0 ? other : right)(context);
    return Float32Array.from({ length: VOCABULARY + padding }, (_, id) => logits[id] ?? 100);
  };
  return { right, near };
}

const optionsOf = ({ promptIds, maxTokens, eosIds, sampling }: World): GenerateOptions => {
  return { promptIds, maxTokens, eosIds, ...sampling };
};

const speculateOf = ({ maxDraft, adapt, times }: World): Omit<SpeculateOptions, 'drafter'> => ({
  asynchronous: true,
  maxDraft,
  adapt,
  clock: anyClock(times),
});

describe('drafting while the model computes', () => {
  it('gives what comes without drafts, drawn or not, however long which step takes', async () => {
    let checked = 0;
    let cancelled = 0;
    await fc.assert(
      fc.asyncProperty(worlds, async (world) => {
        const { right, near } = rulesOf(world);
        const plain = await generate(new FakeModel(right), optionsOf(world));
        const model = new FakeModel(right, turns(world.targetTurns));
        const drafter = new FakeModel(near, turns(world.drafterTurns));
        const wait = turns(world.readerTurns);
        const ids: number[] = [];
        const speculate = { ...speculateOf(world), drafter };
        const tokens = generateTokens(model, { ...optionsOf(world), speculate });
        for (;;) {
          const next = await tokens.next();
          if (next.done) {
            const { speculation, ...got } = next.value;
            expect(got).toEqual(plain);
            expect(speculation!.accepted).toBeLessThanOrEqual(speculation!.drafted);
            const { passes, plainSteps } = speculation!;
            expect(model.calls).toHaveLength(1 + plainSteps + passes);
            checked += speculation!.drafted;
            cancelled += speculation!.cancelled!;
            break;
          }
          ids.push(next.value.id);
          await wait();
        }
        expect(ids).toEqual(plain.ids);
        expect([model.live, drafter.live]).toEqual([0, 0]);
      }),
      { numRuns: 400 },
    );
    expect(checked).toBeGreaterThan(500);
    expect(cancelled).toBeGreaterThan(50);
  });

  it('keeps the caches of both for the next turn', async () => {
    await fc.assert(
      fc.asyncProperty(
        worlds,
        fc.array(fc.nat(VOCABULARY - 1), { minLength: 1, maxLength: 6 }),
        async (world, more) => {
          const { right, near } = rulesOf(world);
          const model = new FakeModel(right, turns(world.targetTurns));
          const drafter = new FakeModel(near, turns(world.drafterTurns));
          const caches = [new PrefixCache(), new PrefixCache()] as const;
          const run = (promptIds: readonly number[]) =>
            generate(model, {
              ...optionsOf(world),
              promptIds,
              cache: caches[0],
              speculate: { ...speculateOf(world), drafter, cache: caches[1] },
            });
          const first = await run(world.promptIds);
          const second = [...world.promptIds, ...first.ids, ...more];
          const { ids } = await run(second);
          const plain = await generate(new FakeModel(right), { ...optionsOf(world), promptIds: second });
          expect(ids).toEqual(plain.ids);
          for (const cache of caches) cache.dispose();
          expect([model.live, drafter.live]).toEqual([0, 0]);
        },
      ),
      { numRuns: 200 },
    );
  });

  it('is ahead of a slow model: passes check what is ready, and the drafter never waits for them', async () => {
    const rule = hashedRule(50, 3);
    const model = new FakeModel(rule, turns([40]));
    const drafter = new FakeModel(rule, turns([10]));
    const { ids, speculation } = await generate(model, {
      promptIds: [1, 2],
      maxTokens: 100,
      speculate: { drafter, asynchronous: true, adapt: false },
    });
    expect(ids).toHaveLength(100);
    expect(speculation).toMatchObject({ cancelled: 0 });
    expect(speculation!.accepted).toBe(speculation!.drafted);
    // Four steps of the drafter fit into one of the model: about 100 / 4 passes.
    const passes = speculation!.passes + speculation!.plainSteps;
    expect(passes).toBeGreaterThanOrEqual(20);
    expect(passes).toBeLessThanOrEqual(34);
    // Nothing is read twice: the prompt, and each token once.
    expect(drafter.calls.reduce((sum, count) => sum + count, 0)).toBeLessThanOrEqual(102);
  });

  it('reads the prompt while the model does', async () => {
    const rule = hashedRule(50, 3);
    let reading = 0;
    let most = 0;
    const step = async () => {
      most = Math.max(most, ++reading);
      await turns([5])();
      reading--;
    };
    const promptIds = [1, 2, 3, 4, 5];
    const speculate = { drafter: new FakeModel(rule, step), asynchronous: true, adapt: false };
    await generate(new FakeModel(rule, step), { promptIds, maxTokens: 1, speculate });
    expect(most).toBe(2);
  });

  it('ends the step of the drafter that a pass has refuted, at once', async () => {
    const right = hashedRule(50, 3);
    // Always wrong: each pass refutes what the drafter is at.
    const wrong: Rule = (context) => right(context).map((logit) => -logit);
    let ended = 0;
    const drafter = new FakeModel(wrong, turns([30]));
    const forward = drafter.forward.bind(drafter);
    drafter.forward = async (request) => {
      request.signal?.addEventListener('abort', () => ended++);
      return forward(request);
    };
    const { ids, speculation } = await generate(new FakeModel(right, turns([50])), {
      promptIds: [1, 2],
      maxTokens: 30,
      speculate: { drafter, asynchronous: true, adapt: false },
    });
    const plain = await generate(new FakeModel(right), { promptIds: [1, 2], maxTokens: 30 });
    expect(ids).toEqual(plain.ids);
    expect(speculation!.accepted).toBe(0);
    expect(speculation!.cancelled).toBeGreaterThan(10);
    expect(ended).toBeGreaterThanOrEqual(speculation!.cancelled!);
  });

  it('goes on after an end that it drafted and the model did not mean', async () => {
    const END = 49;
    const right = hashedRule(49, 3);
    const padded: Rule = (context) =>
      Float32Array.from({ length: 50 }, (_, id) => right(context)[id] ?? -100);
    // Right but for an end in one place early on.
    const near: Rule = (context) => {
      const logits = padded(context);
      if (context.length === 12) logits[END] = 100;
      return logits;
    };
    const model = new FakeModel(padded, turns([6]));
    const { speculation } = await generate(model, {
      promptIds: [1, 2],
      maxTokens: 200,
      eosIds: [END],
      speculate: { drafter: new FakeModel(near), asynchronous: true, adapt: false, maxDraft: 1 },
    });
    expect(speculation!.passes).toBeGreaterThan(80);
  });

  it('counts a step that is ended once, however long its end takes', async () => {
    const right = hashedRule(50, 3);
    const wrong: Rule = (context) => right(context).map((logit) => -logit);
    let ended = 0;
    const drafter = new FakeModel(wrong, turns([2, 2, 2, 100]));
    const forward = drafter.forward.bind(drafter);
    drafter.forward = async (request) => {
      request.signal?.addEventListener('abort', () => ended++);
      return forward(request);
    };
    const { speculation } = await generate(new FakeModel(right, turns([10])), {
      promptIds: [1, 2],
      maxTokens: 100,
      speculate: { drafter, asynchronous: true, adapt: false },
    });
    expect(speculation!.cancelled).toBeGreaterThan(0);
    // One more may be under way when the answer ends.
    expect(ended - speculation!.cancelled!).toBeGreaterThanOrEqual(0);
    expect(ended - speculation!.cancelled!).toBeLessThanOrEqual(1);
  });

  it('gives up on a drafter that is not through the prompt when the answer is, and keeps what was read', async () => {
    let now = 0;
    const rule = hashedRule(50, 3);
    const promptIds = Array.from({ length: 2000 }, (_, i) => i % 50);
    const model = new FakeModel(rule, async () => {
      now += 10;
      await turns([1])();
    });
    // The whole prompt takes longer than some tens of tokens.
    const drafter = new FakeModel(rule, turns([8]));
    using cache = new PrefixCache();
    const run = async () => {
      const speculate = { drafter, cache, asynchronous: true, clock: () => now };
      return (await generate(model, { promptIds, maxTokens: 40, speculate })).speculation!;
    };
    expect((await run()).declined).toBeGreaterThan(5);
    expect(cache.ids.length).toBeGreaterThan(0);
    expect(Math.max(...drafter.calls)).toBeLessThanOrEqual(256);
  });

  it('rests where it costs more than it brings, and is tried again', async () => {
    let now = 0;
    const right = hashedRule(50, 3);
    const wrong: Rule = (context) => right(context).map((logit) => -logit);
    let busy = 0;
    const drafter = new FakeModel(wrong, async () => {
      busy++;
      await turns([3])();
      busy--;
    });
    // Beside a drafter at work the model takes half as long again.
    const model = new FakeModel(right, async () => {
      now += busy > 0 ? 15 : 10;
      await turns([4])();
    });
    const run = async () => {
      const before = drafter.calls.length;
      const { speculation } = await generate(model, {
        promptIds: [1, 2],
        maxTokens: 300,
        speculate: { drafter, asynchronous: true, clock: () => now },
      });
      return { ...speculation!, steps: drafter.calls.length - before };
    };
    const { declined, steps } = await run();
    expect(declined).toBeGreaterThan(200);
    expect(steps).toBeLessThan(150);
    expect(steps).toBeGreaterThan(20);
  });

  it('is an option for drafting models alone', async () => {
    const model = new FakeModel(hashedRule(5, 1));
    const speculate: SpeculateOptions = { drafter: 'prompt', asynchronous: true };
    await expect(generate(model, { promptIds: [1], maxTokens: 3, speculate })).rejects.toMatchObject({
      code: 'SAMPLING_INVALID',
    });
  });
});

describe('an end in the middle', () => {
  const rule = hashedRule(VOCABULARY, 3);

  it('by an abort, at any time, waits for the drafter and frees both caches', async () => {
    for (let at = 1; at <= 40; at++) {
      const stop = new AbortController();
      const model = new FakeModel(rule, turns([3, 5]));
      const drafter = new FakeModel(rule, turns([2, 1, 7]));
      const speculate = { drafter, asynchronous: true, adapt: false };
      const run = generate(model, { promptIds: [1, 2], maxTokens: 100, speculate, signal: stop.signal });
      const rejected = expect(run).rejects.toThrow('enough');
      for (let i = 0; i < at; i++) await turn();
      stop.abort(new Error('enough'));
      await rejected;
      expect([model.live, drafter.live]).toEqual([0, 0]);
      const calls = drafter.calls.length;
      await turns([20])();
      expect(drafter.calls.length).toBe(calls);
    }
  });

  it('by a drafter that fails is its error, and nothing is left', async () => {
    let steps = 0;
    const drafter = new FakeModel(rule, async () => {
      await turn();
      if (++steps === 4) throw new Error('out of memory');
    });
    const model = new FakeModel(rule, turns([3]));
    const speculate = { drafter, asynchronous: true, adapt: false };
    await expect(generate(model, { promptIds: [1], maxTokens: 50, speculate })).rejects.toThrow(
      'out of memory',
    );
    expect([model.live, drafter.live]).toEqual([0, 0]);
  });

  it('by a reader who leaves', async () => {
    const model = new FakeModel(rule, turns([3]));
    const drafter = new FakeModel(rule, turns([2]));
    const speculate = { drafter, asynchronous: true, adapt: false };
    for await (const _ of generateTokens(model, { promptIds: [1], maxTokens: 50, speculate })) break;
    expect([model.live, drafter.live]).toEqual([0, 0]);
  });
});

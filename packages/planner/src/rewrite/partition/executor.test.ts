import { readdirSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { parsePlan } from '@cqil/core';
import {
  BatchedDecoder,
  DecoderSession,
  type ForwardResult,
  generate,
  generateTokens,
  type OpenPartitionedOptions,
  openPartitioned,
  type PartitionedModel,
  PrefixCache,
  seededRandom,
} from '@cqil/runtime-gpu';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { locateModel } from '../../source/index.js';
import { rewriteModel } from '../rewrite-model.js';
import { partitionModel } from './index.js';

const testdata = path.resolve(import.meta.dirname, '../../../../../testdata');

let dir: string;
let parts: string;
let whole: DecoderSession;

beforeAll(async () => {
  dir = await mkdtemp(path.join(os.tmpdir(), 'cqil-executor-'));
  const source = await locateModel(path.join(testdata, 'genai-fp32/llama'));
  const groups = [
    { layers: [1, 2], bypass: 1 },
    { layers: [3, 4], bypass: 0 },
  ];
  const { onnxFile } = await rewriteModel(
    source,
    parsePlan({ version: 1, layers: 6, groups }),
    path.join(dir, 'model'),
  );
  parts = path.join(dir, 'parts');
  await partitionModel(await locateModel(path.join(dir, 'model')), parts, {
    devices: ['cpu:0', 'cpu:1'],
    check: false,
  });
  whole = await DecoderSession.open(onnxFile, { threads: 1 });
});
afterAll(async () => {
  await whole.dispose();
  await rm(dir, { recursive: true });
});

const open = (options: OpenPartitionedOptions = {}) => openPartitioned(parts, { pin: false, ...options });

function expectSame(found: ForwardResult, expected: ForwardResult): void {
  expect(found.logits.dims).toEqual(expected.logits.dims);
  let worst = 0;
  expected.logits.data.forEach((value, i) => {
    worst = Math.max(worst, Math.abs(value - found.logits.data[i]!));
  });
  expect(worst).toBeLessThan(1e-4);
}

/** Threads of this process. */
function threads(): number {
  return process.platform === 'linux' ? readdirSync('/proc/self/task').length : 0;
}

const wait = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

describe.each(['workers', 'async'] as const)('a model in parts, %s', (transport) => {
  it('takes batches, cuts caches back, and continues one twice', async () => {
    await using model = await open({ transport });
    const prompts = [
      [1, 5, 9, 2],
      [7, 3],
    ];
    const [ours, theirs] = [
      await model.forward({ inputIds: prompts }),
      await whole.forward({ inputIds: prompts }),
    ];
    expectSame(ours, theirs);
    const next = [[4], [8]];
    expectSame(
      await model.forward({ inputIds: next, cache: ours.cache }),
      await whole.forward({ inputIds: next, cache: theirs.cache }),
    );
    const a = await model.forward({ inputIds: [[1, 2, 3, 4, 5, 6]] });
    const b = await whole.forward({ inputIds: [[1, 2, 3, 4, 5, 6]] });
    // Two continuations of one cache: the second works on a copy.
    for (const ids of [[[7, 8]], [[9]]]) {
      expectSame(
        await model.forward({ inputIds: ids, cache: a.cache }),
        await whole.forward({ inputIds: ids, cache: b.cache }),
      );
    }
    const [short, shorter] = [a.cache.truncate(3), b.cache.truncate(3)];
    expectSame(
      await model.forward({ inputIds: [[11, 12]], cache: short }),
      await whole.forward({ inputIds: [[11, 12]], cache: shorter }),
    );
    await expect(model.forward({ inputIds: [[1]], cache: a.cache })).rejects.toMatchObject({
      code: 'CACHE_STALE',
    });
  });

  it('generates with everything that generation has', async () => {
    await using model = await open({ transport });
    const promptIds = [3, 1, 4, 1, 5, 9, 2, 6];
    for (const options of [
      { maxTokens: 30 },
      { maxTokens: 30, temperature: 0.9, topP: 0.9, seed: 7 },
      { maxTokens: 30, speculate: { drafter: 'prompt' as const } },
      { maxTokens: 8, logprobs: 3 },
    ]) {
      const expected = await generate(whole, { promptIds, ...options });
      expect((await generate(model, { promptIds, ...options })).ids).toEqual(expected.ids);
    }
    const cache = new PrefixCache();
    const first = await generate(model, { promptIds, maxTokens: 5, cache });
    const again = await generate(model, { promptIds: [...promptIds, ...first.ids, 8], maxTokens: 5, cache });
    const expected = await generate(whole, { promptIds: [...promptIds, ...first.ids, 8], maxTokens: 5 });
    expect(again.ids).toEqual(expected.ids);
    cache.dispose();
  });

  it('does requests that come at once one after the other', async () => {
    await using model = await open({ transport });
    const prompts = [[1, 2, 3], [9, 8, 7, 6], [5], [4, 4, 4, 4, 4]];
    const found = await Promise.all(
      prompts.map((promptIds) => generate(model, { promptIds, maxTokens: 12 })),
    );
    for (const [i, promptIds] of prompts.entries()) {
      expect(found[i]!.ids).toEqual((await generate(whole, { promptIds, maxTokens: 12 })).ids);
    }
  });

  it('reports what ONNX Runtime refuses, and goes on', async () => {
    await using model = await open({ transport });
    const { cache } = await model.forward({ inputIds: [[1, 2, 3]] });
    await expect(model.forward({ inputIds: [[999_999]], cache })).rejects.toMatchObject({
      code: 'RUN_FAILED',
    });
    const reference = await whole.forward({ inputIds: [[1, 2, 3]] });
    expectSame(
      await model.forward({ inputIds: [[4]], cache }),
      await whole.forward({ inputIds: [[4]], cache: reference.cache }),
    );
  });

  it('ends a step by its signal, and goes on', async () => {
    await using model = await open({ transport });
    const { cache } = await model.forward({ inputIds: [[1, 2, 3]] });
    const controller = new AbortController();
    const long = model.forward({
      inputIds: [Array.from({ length: 200 }, (_, i) => i)],
      signal: controller.signal,
    });
    const behind = model.forward({ inputIds: [[4]], cache });
    await wait(1);
    controller.abort(new Error('enough'));
    await expect(long).rejects.toThrow('enough');
    const reference = await whole.forward({ inputIds: [[1, 2, 3]] });
    expectSame(await behind, await whole.forward({ inputIds: [[4]], cache: reference.cache }));
    await expect(model.forward({ inputIds: [[4]], cache, signal: controller.signal })).rejects.toThrow(
      'enough',
    );
  });

  it('refuses to work once it was disposed', async () => {
    const model = await open({ transport });
    await model.forward({ inputIds: [[1]] });
    const under = model.forward({ inputIds: [[1, 2, 3]] });
    await wait(0);
    await model.dispose();
    await model.dispose();
    expect((await under).logits.dims[1]).toBe(3);
    await expect(model.forward({ inputIds: [[1]] })).rejects.toMatchObject({ code: 'SESSION_DISPOSED' });
  });
});

/** One step fails like this; it and all others give what the whole graph gives, from the caches of before. */
async function goesOnAfterOne(model: PartitionedModel, expected: object): Promise<void> {
  let { cache } = await model.forward({ inputIds: [[1, 2, 3]] });
  let reference = await whole.forward({ inputIds: [[1, 2, 3]] });
  let failures = 0;
  for (let i = 0; i < 12; i++) {
    const step = () => model.forward({ inputIds: [[i]], cache });
    const result = await step().catch((error: unknown) => {
      expect(error).toMatchObject(expected);
      failures += 1;
      return step();
    });
    reference = await whole.forward({ inputIds: [[i]], cache: reference.cache });
    expectSame(result, reference);
    cache = result.cache;
  }
  expect(failures).toBe(1);
}

describe('threads of a model in parts', () => {
  it('batch continuously', async () => {
    await using model = await open();
    const batched = await BatchedDecoder.over(model.decoder, { slots: 3 });
    const prompts = [
      [1, 2, 3],
      [9, 8],
      [5, 5, 5, 5],
    ];
    const found = await Promise.all(
      prompts.map((promptIds) => generate(batched, { promptIds, maxTokens: 10 })),
    );
    for (const [i, promptIds] of prompts.entries()) {
      expect(found[i]!.ids).toEqual((await generate(whole, { promptIds, maxTokens: 10 })).ids);
    }
  });

  it('are started again when one ends, and the caches from before still serve', async () => {
    for (const device of [0, 1]) {
      await using model = await open({ fault: { device, step: 6, call: 1, what: 'die' } });
      await goesOnAfterOne(model, { code: 'EXECUTOR_DEVICE_LOST' });
    }
  });

  it('are left behind when one is stuck, and nothing it may still write to is used', async () => {
    await using model = await open({
      deadlineMs: 300,
      fault: { device: 1, step: 6, call: 0, what: { sleepMs: 3000 } },
    });
    const reference = await whole.forward({ inputIds: [[1, 2, 3]] });
    // With room for all that comes, so that the memory stays where it is.
    let { cache } = await model.forward({ inputIds: [[1, 2, 3]], capacity: 192 });
    let failure: unknown;
    const started = performance.now();
    for (let i = 0; i < 12 && failure === undefined; i++) {
      const ended = await model.forward({ inputIds: [[i]], cache }).catch((error: unknown) => {
        failure = error;
      });
      cache = ended?.cache ?? cache;
    }
    expect(failure).toMatchObject({ code: 'EXECUTOR_DEADLINE' });
    expect(performance.now() - started).toBeLessThan(2900);
    await expect(model.forward({ inputIds: [[4]], cache })).rejects.toMatchObject({
      code: 'EXECUTOR_MEMORY_HELD',
    });
    expectSame(await model.forward({ inputIds: [[1, 2, 3]] }), reference);
    await wait(3000);
    const before = cache.length;
    expect((await model.forward({ inputIds: [[4]], cache })).cache.length).toBe(before + 1);
  });

  it('say that memory is at its end, and the next step works', async () => {
    const fails = 'bfc_arena.cc:359 Failed to allocate memory for requested buffer of size 1073741824';
    for (const device of [0, 1]) {
      await using model = await open({ fault: { device, step: 4, call: 1, what: { fails } } });
      const found = expect.stringContaining('1073741824');
      await goesOnAfterOne(model, { code: 'OUT_OF_MEMORY', found });
    }
  });

  it('are killed in the middle of a generation, which fails, and the next one is as ever', async () => {
    const expected = await generate(whole, { promptIds: [1, 2, 3], maxTokens: 12 });
    for (const device of [0, 1]) {
      await using model = await open({ fault: { device, step: 6, call: 0, what: 'die' } });
      const seen: number[] = [];
      const failing = async () => {
        for await (const { id } of generateTokens(model, { promptIds: [1, 2, 3], maxTokens: 12 }))
          seen.push(id);
      };
      await expect(failing()).rejects.toMatchObject({ code: 'EXECUTOR_DEVICE_LOST' });
      expect(seen.length).toBeGreaterThan(0);
      expect(seen).toEqual(expected.ids.slice(0, seen.length));
      expect((await generate(model, { promptIds: [1, 2, 3], maxTokens: 12 })).ids).toEqual(expected.ids);
    }
  });

  it('are given no more memory for caches than they may have', async () => {
    const expected = await generate(whole, { promptIds: [1, 2, 3], maxTokens: 12 });
    // Room is made for 64 positions at a time.
    const bytes = whole.signature.cache.reduce((sum, { past }) => {
      const [, heads, , size] = past.shape;
      return sum + 4 * 64 * Number(heads) * Number(size);
    }, 0);
    await using model = await open({ cacheBytes: 8.5 * bytes });
    const held = await model.forward({ inputIds: [[1, 2, 3]] });
    const reference = await whole.forward({ inputIds: [[1, 2, 3]] });
    const second = await model.forward({ inputIds: [[4, 5]], capacity: 64 * 5 });
    // No room beside the two, though there would be alone: for a long prompt, and for a short one that is to be long.
    const long = [Array.from({ length: 200 }, (_, i) => i)];
    for (const request of [{ inputIds: long }, { inputIds: [[6]], capacity: 64 * 5 }]) {
      await expect(model.forward(request)).rejects.toMatchObject({ code: 'EXECUTOR_OUT_OF_MEMORY' });
    }
    expectSame(
      await model.forward({ inputIds: [[7]], cache: held.cache }),
      await whole.forward({ inputIds: [[7]], cache: reference.cache }),
    );
    second.cache.dispose();
    const { cache } = await model.forward({ inputIds: long });
    expect(cache.length).toBe(200);
    cache.dispose();
    expect((await generate(model, { promptIds: [1, 2, 3], maxTokens: 12 })).ids).toEqual(expected.ids);
  });

  it('come to an end with the model', async () => {
    const model = await open();
    await model.forward({ inputIds: [[1, 2, 3]] });
    const with_ = threads();
    await model.dispose();
    if (process.platform === 'linux') expect(threads()).toBeLessThan(with_);
  });

  it('leak nothing in generations that are given up anywhere', async () => {
    await using model = await open();
    const random = seededRandom(5);
    const one = async () => {
      const controller = new AbortController();
      const stop = random() < 0.7 ? Math.floor(random() * 12) : Number.POSITIVE_INFINITY;
      const promptIds = Array.from({ length: 1 + Math.floor(random() * 30) }, () =>
        Math.floor(random() * 500),
      );
      let count = 0;
      try {
        for await (const _ of generateTokens(model, {
          promptIds,
          maxTokens: 12,
          signal: controller.signal,
        })) {
          if (++count > stop) setTimeout(() => controller.abort(new Error('given up')), random() * 2);
        }
      } catch (error) {
        expect(String(error)).toContain('given up');
      }
    };
    for (let i = 0; i < 40; i++) await one();
    const [memory, running] = [process.memoryUsage.rss(), threads()];
    for (let i = 0; i < 200; i++) await one();
    expect(threads()).toBe(running);
    expect(process.memoryUsage.rss() - memory).toBeLessThan(40e6);
    const expected = await generate(whole, { promptIds: [1, 2, 3], maxTokens: 10 });
    expect((await generate(model, { promptIds: [1, 2, 3], maxTokens: 10 })).ids).toEqual(expected.ids);
  });

  it('say when they did what: nothing runs before what it reads, and branches run at once', async () => {
    // Device 0 takes so long over its branch of the second group that the other one gets round to its own.
    const slow = { device: 0, step: 1, call: 3, what: { sleepMs: 500 } };
    await using model = await open({ trace: true, fault: slow });
    await generate(model, { promptIds: [1, 2, 3], maxTokens: 20 });
    const events = model.trace().traceEvents;
    const runs = events.filter(({ cat }) => cat === 'run');
    const { manifest } = model;
    const at = (step: unknown, name: string) => runs.find((e) => e.args!.step === step && e.name === name)!;
    const steps = new Set(runs.map(({ args }) => args!.step));
    expect(steps.size).toBeGreaterThan(15);
    for (const step of steps) {
      for (const part of manifest.parts) {
        const { ts, tid } = at(step, part.name);
        expect(tid).toBe(manifest.devices.indexOf(part.devices[0]!));
        for (const { from } of part.inputs) {
          if (from === undefined) continue;
          const source = at(step, from);
          // Two clocks, one a thread, that agree but for some microseconds.
          expect(ts!).toBeGreaterThan(source.ts! + source.dur! - 100);
        }
      }
    }
    const [a, b] = [0, 1].map((k) => at(0, `group.1.branch.${k}`));
    expect(a!.dur!).toBeGreaterThan(490_000);
    expect(b!.ts! + b!.dur!).toBeLessThan(a!.ts! + a!.dur!);
    expect(events.filter(({ ph }) => ph === 'M').map(({ args }) => args!.name)).toEqual(['cpu:0', 'cpu:1']);
    expect(model.exchanges().every(({ overheadUs, waitedUs }) => waitedUs >= overheadUs - 100)).toBe(true);
    model.clearTrace();
    expect(model.trace().traceEvents).toHaveLength(2);
  });
});

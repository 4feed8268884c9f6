import fc from 'fast-check';
import { describe, expect, it, vi } from 'vitest';
import { createOpenAIHandler, type HandlerOptions } from '../handler.js';
import { ModelLostError, type TextModel } from '../model.js';
import { eventData, post } from '../test/client.js';
import { type ScriptedModel, scriptedModel } from '../test/scripted.js';
import { MemoryBudget, type Resident } from './memory.js';
import type { ModelSource } from './served.js';

const MiB = 2 ** 20;

interface FakeSource extends ModelSource {
  readonly opened: ScriptedModel[];
  readonly closed: TextModel[];
  open(): Promise<ScriptedModel>;
}

interface FakeOptions {
  readonly bytes?: number;
  readonly openMs?: number;
  readonly closeMs?: number;
  /** Between tokens. */
  readonly pause?: number;
  readonly script?: (nth: number) => readonly (string | Error)[];
}

/** What all sources of a test have open, or are opening, at the same time. */
class Memory {
  taken = 0;
  most = 0;
  readonly log: string[] = [];
  readonly faults: string[] = [];

  source(id: string, options: FakeOptions = {}): FakeSource {
    const { bytes = 100, openMs = 1, closeMs = 1, pause = 1, script = () => ['a', 'b'] } = options;
    const opened: ScriptedModel[] = [];
    const closed: TextModel[] = [];
    return {
      id,
      created: 1,
      opened,
      closed,
      memory: async () => bytes,
      open: async () => {
        this.taken += bytes;
        this.most = Math.max(this.most, this.taken);
        await new Promise((resolve) => setTimeout(resolve, openMs));
        const model = scriptedModel(script(opened.length), { id, pause });
        opened.push(model);
        this.log.push(`+${id}`);
        return model;
      },
      close: async (model) => {
        const scripted = model as ScriptedModel;
        if (scripted.running > 0) this.faults.push(`${id} was closed while in use`);
        if (closed.includes(model)) this.faults.push(`${id} was closed twice`);
        closed.push(model);
        await new Promise((resolve) => setTimeout(resolve, closeMs));
        this.taken -= bytes;
        this.log.push(`-${id}`);
      },
    };
  }
}

function start(sources: readonly FakeSource[], options: Partial<HandlerOptions> = {}) {
  const onError = vi.fn();
  const handler = createOpenAIHandler({ models: sources, onError, ...options });
  const ask = async (model: string, more: object = {}) => {
    const response = await handler(post('/v1/completions', { model, prompt: 'x', ...more }));
    if (more && 'stream' in more) return { status: response.status, response, code: undefined };
    const body = (await response.json()) as { error?: { code: string; message: string } };
    return { status: response.status, response, code: body.error?.code, message: body.error?.message };
  };
  return { handler, ask, onError };
}

describe('models under a budget', () => {
  it('are opened when asked for, and go when others need the room: the one used longest ago first', async () => {
    const memory = new Memory();
    const sources = ['a', 'b', 'c'].map((id) => memory.source(id));
    const { ask } = start(sources, { memoryBytes: 250 });
    expect(memory.log).toEqual([]);
    for (const id of ['a', 'b', 'a', 'c', 'a', 'b']) expect((await ask(id)).status).toBe(200);
    // b was used longest ago when c came, and c when b came again.
    expect(memory.log).toEqual(['+a', '+b', '-b', '+c', '-c', '+b']);
    expect(memory.most).toBe(200);
    expect(memory.faults).toEqual([]);
  });

  it('say how large they are when one alone is more than there is', async () => {
    const memory = new Memory();
    const { ask, onError } = start([memory.source('big', { bytes: 300 * MiB }), memory.source('small')], {
      memoryBytes: 200 * MiB,
    });
    const refused = await ask('big');
    expect(refused).toMatchObject({ status: 500, code: 'model_too_large' });
    expect(refused.message).toContain('300 MiB');
    expect(refused.message).toContain('200');
    expect(refused.response.headers.get('x-should-retry')).toBe('false');
    expect(onError).toHaveBeenCalledTimes(1);
    expect((await ask('small')).status).toBe(200);
    expect(memory.log).toEqual(['+small']);
  });

  it('in use stay: who needs their room waits for them, or is told to come again', async () => {
    const memory = new Memory();
    const busy = memory.source('busy', { pause: 10, script: () => new Array(15).fill('x') });
    const { ask } = start([busy, memory.source('other')], { memoryBytes: 150, loadWaitMs: 30 });
    const long = ask('busy');
    await vi.waitFor(() => expect(busy.opened[0]?.running).toBe(1));
    const early = await ask('other');
    expect(early).toMatchObject({ status: 503, code: 'model_loading' });
    expect(early.response.headers.get('retry-after')).toBe('2');
    expect(memory.log).toEqual(['+busy']);
    // When nobody waits for the room any more, newcomers are let in again.
    const next = ask('busy', { max_tokens: 1 });
    expect((await long).status).toBe(200);
    expect((await next).status).toBe(200);
    expect((await ask('other')).status).toBe(200);
    expect(memory.log).toEqual(['+busy', '-busy', '+other']);
    expect(memory.faults).toEqual([]);
  });

  it('cannot keep others out for ever by being in use again and again', async () => {
    const memory = new Memory();
    const busy = memory.source('busy', { pause: 5, script: () => ['x', 'x', 'x'] });
    const { ask } = start([busy, memory.source('other')], { memoryBytes: 150, maxWaiting: 100 });
    let over = false;
    const crowd = Array.from({ length: 4 }, async () => {
      const statuses = new Set<number>();
      while (!over) statuses.add((await ask('busy')).status);
      return [...statuses];
    });
    await vi.waitFor(() => expect(busy.opened[0]?.running).toBe(1));
    expect((await ask('other')).status).toBe(200);
    over = true;
    expect(await Promise.all(crowd)).toEqual([[200], [200], [200], [200]]);
    expect(memory.faults).toEqual([]);
  });

  it('that grow beyond it make room, but never by the one used last', async () => {
    const memory = new Memory();
    const sources = ['a', 'b'].map((id) => memory.source(id));
    const { ask } = start(sources, { memoryBytes: 250 });
    await ask('a');
    await ask('b');
    Object.assign(sources[1]!.opened[0]!, { bytes: 500 });
    await ask('b');
    await vi.waitFor(() => expect(memory.log).toEqual(['+a', '+b', '-a']));
    await ask('b');
    expect(memory.log).toHaveLength(3);
  });

  it('that cannot be closed stay', async () => {
    const memory = new Memory();
    const { close: _, ...kept } = memory.source('kept');
    const { ask } = start([kept as FakeSource, memory.source('b')], { memoryBytes: 150, loadWaitMs: 20 });
    expect((await ask('kept')).status).toBe(200);
    expect((await ask('b')).status).toBe(503);
    expect((await ask('kept')).status).toBe(200);
  });

  it('whose opening fails leave their room', async () => {
    const memory = new Memory();
    const broken = memory.source('broken');
    const open = vi.fn().mockRejectedValue(new Error('no such file'));
    const { ask } = start([{ ...broken, open }, memory.source('b')], { memoryBytes: 150 });
    expect(await ask('broken')).toMatchObject({ status: 500, code: 'model_load_failed' });
    expect((await ask('b')).status).toBe(200);
    expect((await ask('broken')).status).toBe(500);
    expect(open).toHaveBeenCalledTimes(2);
  });

  it('are opened once for all who come, and not at all for those who went away before', async () => {
    const memory = new Memory();
    const a = memory.source('a', { openMs: 20, closeMs: 10 });
    const b = memory.source('b', { openMs: 20 });
    const { handler, ask } = start([a, b], { memoryBytes: 150 });
    const both = await Promise.all([ask('a'), ask('a'), ask('b'), ask('b'), ask('a')]);
    expect(both.map(({ status }) => status)).toEqual([200, 200, 200, 200, 200]);
    expect([a.opened.length, b.opened.length]).toEqual([1, 1]);
    // While b is in use, one who wants a gives up; nothing is to come of that.
    const client = new AbortController();
    const stream = await handler(post('/v1/completions', { model: 'b', prompt: 'x', stream: true }));
    const gone = handler(post('/v1/completions', { model: 'a', prompt: 'x' }, { signal: client.signal }));
    setTimeout(() => client.abort(), 10);
    expect((await gone).status).toBe(499);
    expect((await eventData(stream)).at(-1)).toBe('[DONE]');
    await new Promise((resolve) => setTimeout(resolve, 40));
    expect(memory.log).toEqual(['+a', '-a', '+b']);
    expect(memory.faults).toEqual([]);
  });

  it('are drained while one of them is opening', async () => {
    const memory = new Memory();
    const { handler, ask } = start([memory.source('a', { openMs: 50 })], { memoryBytes: 150 });
    const asked = ask('a');
    await new Promise((resolve) => setTimeout(resolve, 5));
    await handler.drain({ drainMs: 1000 });
    expect((await asked).status).toBe(200);
    expect(await ask('a')).toMatchObject({ status: 503, code: 'server_draining' });
  });

  it('serve whatever comes, in any order, and never take more than there is', async () => {
    const request = fc.record({
      model: fc.constantFrom('a', 'b', 'c', 'd'),
      at: fc.nat(40),
      tokens: fc.integer({ min: 1, max: 4 }),
      leaves: fc.option(fc.nat(15), { nil: undefined, freq: 3 }),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(request, { minLength: 1, maxLength: 25 }), async (requests) => {
        const memory = new Memory();
        const sizes = { a: 60, b: 90, c: 120, d: 200 };
        const sources = Object.entries(sizes).map(([id, bytes], i) =>
          memory.source(id, { bytes, openMs: i, closeMs: 3 - i, script: () => ['x', 'x', 'x', 'x'] }),
        );
        const { handler, onError } = start(sources, { memoryBytes: 210, maxWaiting: 100, loadWaitMs: 1000 });
        const statuses = await Promise.all(
          requests.map(async ({ model, at, tokens, leaves }) => {
            await new Promise((resolve) => setTimeout(resolve, at));
            const client = new AbortController();
            if (leaves !== undefined) setTimeout(() => client.abort(), leaves);
            const body = { model, prompt: 'x', max_tokens: tokens };
            const response = await handler(post('/v1/completions', body, { signal: client.signal }));
            return leaves === undefined ? response.status : 200;
          }),
        );
        expect(new Set(statuses)).toEqual(new Set([200]));
        expect(memory.most).toBeLessThanOrEqual(210);
        expect(memory.faults).toEqual([]);
        expect(onError).not.toHaveBeenCalled();
      }),
      { numRuns: 40 },
    );
  });

  it('need memory', () => {
    expect(() => start([new Memory().source('a')], { memoryBytes: 0 })).toThrow(
      expect.objectContaining({ code: 'MODELS_INVALID' }),
    );
  });
});

describe('MemoryBudget', () => {
  it('lets nobody in before those who came first', async () => {
    const budget = new MemoryBudget(10);
    const resident = (): Resident => ({
      bytes: 6,
      idle: false,
      removable: true,
      lastUsed: 0,
      unload: () => {},
      hold: () => {},
    });
    const never = new AbortController().signal;
    const [a, b, c] = [resident(), resident(), resident()];
    await budget.enter(a, 6, never);
    budget.settle(a);
    const order: string[] = [];
    const leave = new AbortController();
    const large = budget.enter(b, 6, leave.signal).then(
      () => order.push('b'),
      () => order.push('b left'),
    );
    const small = budget.enter(c, 1, never).then(() => order.push('c'));
    await new Promise((resolve) => setTimeout(resolve, 5));
    expect(order).toEqual([]);
    leave.abort(new Error('enough'));
    await Promise.all([large, small]);
    expect(order.sort()).toEqual(['b left', 'c']);
  });
});

describe('a model that breaks down', () => {
  const fault = () => new ModelLostError('The worker ended.');

  it.each([undefined, 150])('is closed, and opened anew for the next request (memory: %s)', async (limit) => {
    const memory = new Memory();
    const source = memory.source('m', { script: (nth) => (nth === 0 ? ['a', fault()] : ['a', 'b']) });
    const { ask, onError } = start([source], limit === undefined ? {} : { memoryBytes: limit });
    expect(await ask('m')).toMatchObject({ status: 500, code: 'model_lost' });
    expect((await ask('m')).status).toBe(200);
    expect(memory.log).toEqual(['+m', '-m', '+m']);
    expect(onError.mock.calls).toEqual([[expect.objectContaining({ code: 'MODEL_LOST' })]]);
    expect(memory.faults).toEqual([]);
  });

  it('is told of in a stream, and to all who use it or wait for it; who comes later is not touched', async () => {
    const memory = new Memory();
    const script = (nth: number) => (nth === 0 ? [...new Array(5).fill('x'), fault()] : ['ok']);
    const source = memory.source('m', { script, pause: 5, closeMs: 20 });
    const { handler, ask, onError } = start([source]);
    const stream = await handler(post('/v1/completions', { model: 'm', prompt: 'x', stream: true }));
    const [events, waiting] = await Promise.all([eventData(stream), ask('m')]);
    expect(JSON.parse(events.at(-1)!)).toMatchObject({ error: { code: 'model_lost' } });
    expect(waiting).toMatchObject({ status: 500, code: 'model_lost' });
    const later = await Promise.all([ask('m'), ask('m')]);
    expect(later.map(({ status }) => status)).toEqual([200, 200]);
    expect(memory.log).toEqual(['+m', '-m', '+m']);
    expect(onError).toHaveBeenCalledTimes(1);
  });

  it('may do so while it reads a text', async () => {
    const memory = new Memory();
    const source = memory.source('m');
    const open = async () => {
      const model = await source.open();
      if (source.opened.length > 1) return model;
      return { ...model, encode: () => Promise.reject(fault()) };
    };
    const { ask } = start([{ ...source, open: open as FakeSource['open'] }]);
    expect(await ask('m')).toMatchObject({ status: 500, code: 'model_lost' });
    expect((await ask('m')).status).toBe(200);
  });

  it('that the handler was given as it is stays what it is', async () => {
    const onError = vi.fn();
    const handler = createOpenAIHandler({ models: [scriptedModel([fault()])], onError });
    for (let i = 0; i < 2; i++) {
      const response = await handler(post('/v1/completions', { model: 'scripted', prompt: 'x' }));
      expect(await response.json()).toMatchObject({ error: { code: 'model_lost' } });
    }
    expect(onError).toHaveBeenCalledTimes(2);
  });
});

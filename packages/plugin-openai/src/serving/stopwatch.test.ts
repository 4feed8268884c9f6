import { describe, expect, it, vi } from 'vitest';
import type { Timings } from '../api/writer.js';
import { createOpenAIHandler } from '../handler.js';
import type { TextPiece } from '../model.js';
import { eventData, post } from '../test/client.js';
import { collect } from '../test/collect.js';
import { scriptedModel } from '../test/scripted.js';
import { Stopwatch } from './stopwatch.js';

const pause = (milliseconds: number) => new Promise((resolve) => setTimeout(resolve, milliseconds));

async function* slow(pieces: readonly TextPiece[], milliseconds: number): AsyncGenerator<TextPiece, void> {
  for (const piece of pieces) {
    await pause(milliseconds);
    yield piece;
  }
}
const token: TextPiece = { text: 'x', tokens: 1 };

describe('Stopwatch', () => {
  it('counts what a model takes, and not what a reader does', async () => {
    const watch = new Stopwatch();
    const pieces: TextPiece[] = [{ text: '', tokens: 0, cachedTokens: 7 }, token, token, token];
    const began = performance.now();
    for await (const _ of watch.time(slow(pieces, 20), 10)) await pause(40);
    const all = performance.now() - began;
    const { timings } = watch;
    expect(timings).toMatchObject({ cache_n: 7, prompt_n: 3, predicted_n: 3 });
    // Clocks of timers may be a millisecond off.
    expect(timings.prompt_ms).toBeGreaterThanOrEqual(38);
    expect(timings.predicted_ms).toBeGreaterThanOrEqual(38);
    expect(timings.prompt_ms + timings.predicted_ms).toBeLessThan(all - 4 * 38);
    expect(timings.prompt_per_second).toBeCloseTo(3000 / timings.prompt_ms, 2);
    expect(timings.predicted_per_second).toBeCloseTo(3000 / timings.predicted_ms, 2);
    expect(timings.predicted_per_token_ms).toBeCloseTo(timings.predicted_ms / 3, 2);
  });

  it('adds up generations, and what came of drafts', async () => {
    const watch = new Stopwatch();
    expect(watch.timings).not.toHaveProperty('draft_n');
    const drafts = (drafted: number, accepted: number) => ({ ...token, drafts: { drafted, accepted } });
    await collect(watch.time(slow([drafts(2, 1), drafts(5, 3)], 0), 4));
    await collect(watch.time(slow([drafts(0, 0), drafts(4, 4)], 0), 4));
    expect(watch.timings).toMatchObject({
      prompt_n: 8,
      predicted_n: 4,
      draft_n: 9,
      draft_n_accepted: 7,
    });
  });

  it('has numbers for nothing, and ends what it is not read to the end of', async () => {
    const watch = new Stopwatch();
    expect(Object.values(watch.timings).every((value) => value === 0)).toBe(true);
    const ended = vi.fn();
    async function* endless() {
      try {
        for (;;) yield token;
      } finally {
        ended();
      }
    }
    for await (const _ of watch.time(endless(), 1)) break;
    expect(ended).toHaveBeenCalledTimes(1);
  });
});

describe('timings', () => {
  const handler = createOpenAIHandler({ models: [scriptedModel(['a', 'b'])] });
  const ask = { model: 'scripted', prompt: ['four', 'eightsix'], n: 2 };
  const told = { cache_n: 0, prompt_n: 24, predicted_n: 12 };
  const chunks = async (path: string, body: object) =>
    (await eventData(await handler(post(path, { ...ask, ...body, stream: true }))))
      .filter((data) => data !== '[DONE]')
      .map((data) => JSON.parse(data) as { timings?: Timings; usage?: object | null; choices: unknown[] });

  it('are told with a whole answer, of all its choices', async () => {
    const response = await handler(post('/v1/completions', ask));
    const { timings } = (await response.json()) as { timings: Timings };
    expect(timings).toMatchObject(told);
    expect(timings.prompt_ms).toBeGreaterThan(0);
  });

  it('come with the last chunk of a stream alone', async () => {
    const plain = await chunks('/v1/completions', {});
    expect(plain.at(-1)?.timings).toMatchObject(told);
    expect(plain.filter(({ timings }) => timings !== undefined)).toHaveLength(1);
    const used = await chunks('/v1/completions', { stream_options: { include_usage: true } });
    expect(used.at(-1)).toMatchObject({ choices: [], timings: told, usage: { completion_tokens: 12 } });
    expect(used.filter(({ timings }) => timings !== undefined)).toHaveLength(1);
  });

  it('come with every token where that is wanted', async () => {
    const messages = [{ role: 'user', content: 'Hi' }];
    const [opening, ...rest] = await chunks('/v1/chat/completions', {
      messages,
      n: 1,
      timings_per_token: true,
    });
    expect(opening).not.toHaveProperty('timings');
    expect(rest.map(({ timings }) => timings?.predicted_n)).toEqual([1, 2, 3]);
  });

  it('come with responses', async () => {
    const whole = await handler(post('/v1/responses', { model: 'scripted', input: 'Hi' }));
    expect(await whole.json()).toMatchObject({ timings: { predicted_n: 3 } });
    const streamed = await handler(post('/v1/responses', { model: 'scripted', input: 'Hi', stream: true }));
    const events = (await eventData(streamed)).map((data) => JSON.parse(data) as { response?: object });
    expect(events.at(-1)).toMatchObject({ response: { timings: { predicted_n: 3 } } });
    expect(events[0]?.response).not.toHaveProperty('timings');
  });

  it('can be left out', async () => {
    const silent = createOpenAIHandler({ models: [scriptedModel(['a'])], timings: false });
    for (const stream of [true, false]) {
      const body = { ...ask, stream, timings_per_token: true };
      expect(await (await silent(post('/v1/completions', body))).text()).not.toContain('timings');
    }
  });
});

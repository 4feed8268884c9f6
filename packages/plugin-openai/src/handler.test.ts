import OpenAI from 'openai';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { createOpenAIHandler, type HandlerOptions } from './handler.js';
import { collect } from './test/collect.js';
import { scriptedModel } from './test/scripted.js';

const answerTokens = ['Hel', 'lo', ', wor', 'ld', '!'];
const messages = [{ role: 'user' as const, content: 'Hi' }];
/** `user:Hi;` in the scripted model's tokens. */
const PROMPT = 8;

/** OpenAI's own client, with the handler in place of the network. */
function clientOf(options: HandlerOptions | ReturnType<typeof createOpenAIHandler>) {
  const handler = typeof options === 'function' ? options : createOpenAIHandler(options);
  return new OpenAI({
    apiKey: 'none',
    baseURL: 'http://localhost/v1',
    maxRetries: 0,
    fetch: (url, init) => handler(new Request(url, init)),
  });
}

function post(path: string, body: unknown, init: RequestInit = {}): Request {
  const text = typeof body === 'string' ? body : JSON.stringify(body);
  return new Request(`http://localhost${path}`, { method: 'POST', body: text, ...init });
}

/** The data of each event. */
async function eventsOf(response: Response): Promise<string[]> {
  const text = await response.text();
  expect(text.endsWith('\n\n')).toBe(true);
  return text
    .slice(0, -2)
    .split('\n\n')
    .map((event) => {
      expect(event).toMatch(/^data: [^\n]+$/);
      return event.slice('data: '.length);
    });
}

afterEach(() => vi.restoreAllMocks());

describe('through the client of OpenAI', () => {
  it('lists models', async () => {
    const models = [scriptedModel([], { id: 'org/a' }), scriptedModel([], { id: 'b' })];
    const client = clientOf({ models });
    const list = await client.models.list();
    expect(list.data).toEqual(
      ['org/a', 'b'].map((id) => ({ id, object: 'model', created: 1_700_000_000, owned_by: 'cqil' })),
    );
    expect(await client.models.retrieve('org/a')).toMatchObject({ id: 'org/a' });
    await expect(client.models.retrieve('c')).rejects.toMatchObject({ status: 404, code: 'model_not_found' });
  });

  it('answers a chat', async () => {
    const client = clientOf({ models: [scriptedModel(answerTokens)] });
    const answer = await client.chat.completions.create({ model: 'scripted', messages });
    expect(answer).toEqual({
      id: expect.stringMatching(/^chatcmpl-/),
      object: 'chat.completion',
      created: expect.any(Number),
      model: 'scripted',
      choices: [
        {
          index: 0,
          message: { role: 'assistant', content: 'Hello, world!', refusal: null },
          logprobs: null,
          finish_reason: 'stop',
        },
      ],
      usage: {
        prompt_tokens: PROMPT,
        completion_tokens: 6,
        total_tokens: PROMPT + 6,
        prompt_tokens_details: { cached_tokens: 0 },
      },
      timings: expect.objectContaining({ prompt_n: PROMPT, predicted_n: 6 }),
    });
  });

  it('streams a chat', async () => {
    const client = clientOf({ models: [scriptedModel(answerTokens)] });
    const stream = await client.chat.completions.create({
      model: 'scripted',
      messages,
      stream: true,
      stream_options: { include_usage: true },
    });
    const chunks = await collect(stream);
    expect(new Set(chunks.map(({ id }) => id)).size).toBe(1);
    expect(chunks.map(({ choices }) => choices[0]?.delta)).toEqual([
      { role: 'assistant', content: '', refusal: null },
      ...answerTokens.map((content) => ({ content })),
      {},
      undefined,
    ]);
    expect(chunks.map(({ choices }) => choices[0]?.finish_reason)).toEqual([
      ...new Array(6).fill(null),
      'stop',
      undefined,
    ]);
    expect(chunks.map(({ usage }) => usage)).toEqual([
      ...new Array(7).fill(null),
      {
        prompt_tokens: PROMPT,
        completion_tokens: 6,
        total_tokens: PROMPT + 6,
        prompt_tokens_details: { cached_tokens: 0 },
      },
    ]);
  });

  it('continues a text, whole and streamed', async () => {
    const client = clientOf({ models: [scriptedModel(answerTokens)] });
    const request = { model: 'scripted', prompt: 'Once', max_tokens: 3 };
    expect(await client.completions.create(request)).toEqual({
      id: expect.stringMatching(/^cmpl-/),
      object: 'text_completion',
      created: expect.any(Number),
      model: 'scripted',
      choices: [{ index: 0, text: 'Hello, wor', logprobs: null, finish_reason: 'length' }],
      usage: {
        prompt_tokens: 4,
        completion_tokens: 3,
        total_tokens: 7,
        prompt_tokens_details: { cached_tokens: 0 },
      },
      timings: expect.objectContaining({ prompt_n: 4, predicted_n: 3 }),
    });
    const chunks = await collect(await client.completions.create({ ...request, stream: true }));
    expect(chunks.map(({ choices }) => [choices[0]?.text, choices[0]?.finish_reason])).toEqual([
      ['Hel', null],
      ['lo', null],
      [', wor', null],
      ['', 'length'],
    ]);
  });

  it('hands parameters to the model', async () => {
    const model = scriptedModel(answerTokens);
    const client = clientOf({ models: [model] });
    await client.chat.completions.create({
      model: 'scripted',
      messages,
      max_tokens: 2,
      temperature: 0.5,
      top_p: 0.25,
      seed: 7,
    });
    await client.chat.completions.create({ model: 'scripted', messages });
    await client.completions.create({ model: 'scripted', prompt: 'x' });
    expect(model.requests[0]).toMatchObject({ maxTokens: 2, temperature: 0.5, topP: 0.25, seed: 7 });
    expect(model.requests[0]?.promptIds).toHaveLength(PROMPT);
    // Without a limit: what the context leaves; in the older interface, sixteen.
    expect(model.requests[1]).toMatchObject({ maxTokens: 100 - PROMPT, temperature: 1, topP: 1 });
    expect(model.requests[2]?.maxTokens).toBe(16);
    expect(model.requests[1]?.seed).not.toBe(model.requests[2]?.seed);
  });

  it.each([true, false])('ends at a stop string, which is left out (stream: %s)', async (stream) => {
    const model = scriptedModel(['on', 'e', ' two', ' th', 'ree']);
    const client = clientOf({ models: [model] });
    const request = { model: 'scripted', messages, stop: ['zzz', 'e tw'] };
    let text = '';
    let reason: string | null | undefined;
    if (stream) {
      for await (const { choices } of await client.chat.completions.create({ ...request, stream: true })) {
        text += choices[0]?.delta.content ?? '';
        reason = choices[0]?.finish_reason;
      }
    } else {
      const { choices } = await client.chat.completions.create(request);
      text = choices[0]?.message.content ?? '';
      reason = choices[0]?.finish_reason;
    }
    expect([text, reason]).toEqual(['on', 'stop']);
    expect(model).toMatchObject({ steps: 3, running: 0 });
  });

  it('tells of errors as OpenAI does', async () => {
    const client = clientOf({ models: [scriptedModel([], { contextLength: 20 })] });
    const chat = client.chat.completions;
    await expect(chat.create({ model: 'none', messages })).rejects.toMatchObject({
      status: 404,
      type: 'invalid_request_error',
      param: 'model',
      code: 'model_not_found',
    });
    const tools = [{ type: 'function' as const, function: { name: 'f' } }];
    await expect(chat.create({ model: 'scripted', messages, tools })).rejects.toMatchObject({
      status: 400,
      param: 'tools',
      code: 'unsupported_parameter',
    });
    const tooLong = { status: 400, param: 'messages', code: 'context_length_exceeded' };
    await expect(chat.create({ model: 'scripted', messages, max_tokens: 13 })).rejects.toMatchObject(tooLong);
    const long = [{ role: 'user' as const, content: 'x'.repeat(20) }];
    await expect(chat.create({ model: 'scripted', messages: long })).rejects.toMatchObject(tooLong);
    const wrongOrder = [{ role: 'assistant' as const, content: 'Hi' }];
    await expect(chat.create({ model: 'scripted', messages: wrongOrder })).rejects.toMatchObject({
      status: 400,
      param: 'messages',
    });
    await expect(client.completions.create({ model: 'scripted', prompt: '' })).rejects.toMatchObject({
      status: 400,
      param: 'prompt',
    });
  });
});

describe('the handler', () => {
  it('writes events and [DONE]', async () => {
    const handler = createOpenAIHandler({ models: [scriptedModel(['a'])] });
    const response = await handler(
      post('/v1/chat/completions', { model: 'scripted', messages, stream: true }),
    );
    expect(response.headers.get('content-type')).toBe('text/event-stream; charset=utf-8');
    const events = await eventsOf(response);
    expect(events.at(-1)).toBe('[DONE]');
    const objects = events.slice(0, -1).map((event) => JSON.parse(event));
    expect(objects).toHaveLength(3);
    for (const object of objects) expect(object).not.toHaveProperty('usage');
  });

  it('has a health check, and knows its paths and methods', async () => {
    const handler = createOpenAIHandler({ models: [scriptedModel([])] });
    const get = (path: string, method = 'GET') => handler(new Request(`http://localhost${path}`, { method }));
    const health = await get('/health');
    expect([health.status, await health.json()]).toEqual([200, { status: 'ok' }]);
    const nothing = await get('/v1/audio');
    expect([nothing.status, await nothing.json()]).toEqual([
      404,
      {
        error: {
          message: 'There is nothing at /v1/audio.',
          type: 'invalid_request_error',
          param: null,
          code: 'unknown_url',
        },
      },
    ]);
    const wrong = await get('/v1/chat/completions');
    expect([wrong.status, wrong.headers.get('allow')]).toEqual([405, 'POST']);
    expect((await get('/v1/models/%E0%A4%A')).status).toBe(400);
  });

  it.each([
    ['nothing', '', 'invalid_json'],
    ['half an object', '{"model":', 'invalid_json'],
    ['a list', '[1]', 'invalid_value'],
    ['null', 'null', 'invalid_value'],
    ['half a surrogate pair', '"\\ud800"', 'invalid_unicode'],
    ['lists in lists', `${'['.repeat(100)}${']'.repeat(100)}`, 'nested_too_deep'],
    ['very many lists in lists', `${'['.repeat(500_000)}${']'.repeat(500_000)}`, 'nested_too_deep'],
  ])('refuses a body of %s', async (_what, body, code) => {
    const handler = createOpenAIHandler({ models: [scriptedModel([])] });
    const response = await handler(post('/v1/completions', body));
    expect(response.status).toBe(400);
    expect(await response.json()).toMatchObject({ error: { code, type: 'invalid_request_error' } });
  });

  it('reads no more than its limit', async () => {
    const handler = createOpenAIHandler({ models: [scriptedModel([])], limits: { bodyBytes: 1000 } });
    const announced = post('/v1/completions', 'x'.repeat(2000), { headers: { 'content-length': '2000' } });
    expect((await handler(announced)).status).toBe(413);
    let pulled = 0;
    const endless = new ReadableStream({
      pull(controller) {
        pulled++;
        controller.enqueue(new Uint8Array(500));
      },
    });
    const request = new Request('http://localhost/v1/completions', {
      method: 'POST',
      body: endless,
      duplex: 'half',
    });
    const response = await handler(request);
    expect([response.status, await response.json()]).toMatchObject([
      413,
      { error: { code: 'request_too_large' } },
    ]);
    expect(pulled).toBeLessThan(6);
  });

  it('answers one request at a time, and so many waiting', async () => {
    const model = scriptedModel(answerTokens, { pause: 2 });
    const client = clientOf({ models: [model], maxWaiting: 2 });
    const ask = () => client.chat.completions.create({ model: 'scripted', messages });
    const results = await Promise.allSettled([ask(), ask(), ask(), ask()]);
    expect(results.map(({ status }) => status)).toEqual(['fulfilled', 'fulfilled', 'fulfilled', 'rejected']);
    const { reason } = results[3] as PromiseRejectedResult;
    expect(reason).toMatchObject({ status: 429, code: 'queue_full', type: 'rate_limit_error' });
    expect(Number(reason.headers.get('retry-after'))).toBeGreaterThanOrEqual(1);
    expect(model.peak).toBe(1);
    await ask();
  });

  it('does not let one model wait for another', async () => {
    const slow = scriptedModel(['x'], { id: 'slow', pause: 300 });
    const fast = scriptedModel(['x'], { id: 'fast' });
    const client = clientOf({ models: [slow, fast] });
    const ask = (model: string) => client.chat.completions.create({ model, messages });
    const order: string[] = [];
    await Promise.all(['slow', 'fast'].map((id) => ask(id).then(() => order.push(id))));
    expect(order).toEqual(['fast', 'slow']);
  });

  it('ends the generation when the reader of a stream goes away, and goes on with the next', async () => {
    const model = scriptedModel(new Array(90).fill('x'), { pause: 2 });
    const handler = createOpenAIHandler({ models: [model] });
    const request = { model: 'scripted', messages, stream: true };
    const response = await handler(post('/v1/chat/completions', request));
    const reader = response.body!.getReader();
    for (let i = 0; i < 3; i++) await reader.read();
    const { steps } = model;
    await reader.cancel();
    expect(model.running).toBe(0);
    expect(model.steps).toBeLessThanOrEqual(steps + 1);
    const next = await handler(post('/v1/completions', { model: 'scripted', prompt: 'x', max_tokens: 1 }));
    expect(next.status).toBe(200);
  });

  it.each([true, false])('ends the generation when the request is aborted (stream: %s)', async (stream) => {
    const onError = vi.fn();
    const model = scriptedModel(new Array(90).fill('x'), { pause: 2 });
    const handler = createOpenAIHandler({ models: [model], onError });
    const client = new AbortController();
    const request = post(
      '/v1/chat/completions',
      { model: 'scripted', messages, stream },
      { signal: client.signal },
    );
    const responding = handler(request).then((response) => response.text());
    await vi.waitFor(() => expect(model.running).toBe(1));
    client.abort();
    const { steps } = model;
    // Where a server still reads what nobody takes from it, the stream just ends.
    await responding;
    await vi.waitFor(() => expect(model.running).toBe(0));
    expect(model.steps).toBeLessThanOrEqual(steps + 1);
    expect(onError).not.toHaveBeenCalled();
    const next = await handler(post('/v1/completions', { model: 'scripted', prompt: 'x', max_tokens: 1 }));
    expect(next.status).toBe(200);
  });

  it('lets a waiting request leave', async () => {
    const model = scriptedModel(answerTokens, { pause: 5 });
    const handler = createOpenAIHandler({ models: [model], maxWaiting: 1 });
    const ask = (signal?: AbortSignal) =>
      handler(post('/v1/chat/completions', { model: 'scripted', messages }, signal ? { signal } : {}));
    const first = ask();
    const client = new AbortController();
    const second = ask(client.signal);
    await new Promise((resolve) => setTimeout(resolve, 5));
    client.abort();
    expect((await second).status).toBe(499);
    const third = ask();
    expect([(await first).status, (await third).status]).toEqual([200, 200]);
    expect(model.requests).toHaveLength(2);
  });

  it('tells nobody but its owner what failed in a model', async () => {
    const onError = vi.fn();
    const fault = new Error('/secret/path/model.onnx is broken');
    const handler = createOpenAIHandler({ models: [scriptedModel(['a', fault])], onError });
    const whole = await handler(post('/v1/completions', { model: 'scripted', prompt: 'x' }));
    const error = {
      message: 'The model failed on this request.',
      type: 'server_error',
      param: null,
      code: 'internal_error',
    };
    expect([whole.status, await whole.json()]).toEqual([500, { error }]);
    const streamed = await handler(post('/v1/completions', { model: 'scripted', prompt: 'x', stream: true }));
    const events = await eventsOf(streamed);
    expect(JSON.parse(events.at(-1)!)).toEqual({ error });
    expect(onError.mock.calls).toEqual([[fault], [fault]]);
  });

  it('wants models with ids of their own', () => {
    const refused = expect.objectContaining({ code: 'MODELS_INVALID' });
    expect(() => createOpenAIHandler({ models: [] })).toThrow(refused);
    expect(() => createOpenAIHandler({ models: [scriptedModel([]), scriptedModel([])] })).toThrow(refused);
  });
});

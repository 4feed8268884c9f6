import { describe, expect, it, vi } from 'vitest';
import { createOpenAIHandler, type HandlerOptions } from '../handler.js';
import type { TextModel } from '../model.js';
import { eventData, post } from '../test/client.js';
import { scriptedModel } from '../test/scripted.js';

const ask = { model: 'scripted', prompt: 'x' };
const get = (path: string, headers: Record<string, string> = {}) =>
  new Request(`http://localhost${path}`, { headers });

async function outcome(response: Response | Promise<Response>) {
  const { status, headers } = await response;
  const body = (await (await response).json()) as { error?: { code?: string } };
  return { status, code: body.error?.code, headers };
}

describe('keys', () => {
  const handler = createOpenAIHandler({
    models: [scriptedModel(['a'])],
    apiKeys: ['first key', 'second'],
    metrics: true,
  });

  it.each(['/v1/models', '/v1/models/scripted', '/metrics', '/nothing', '/'])('guard %s', async (path) => {
    for (const authorization of ['', 'Bearer', 'Bearer wrong', 'Bearer second2', 'Digest second', 'second']) {
      const response = handler(get(path, { authorization }));
      expect(await outcome(response)).toMatchObject({ status: 401, code: 'invalid_api_key' });
    }
  });

  it.each([
    '/v1/chat/completions',
    '/v1/completions',
    '/v1/responses',
    '/v1/embeddings',
    '/tokenize',
    '/detokenize',
  ])('guard %s, before anything of it is read', async (path) => {
    expect(await outcome(handler(post(path, 'no JSON')))).toMatchObject({ status: 401 });
  });

  it('let pass who has one', async () => {
    const basic = (pair: string) => `Basic ${Buffer.from(pair).toString('base64')}`;
    for (const authorization of [
      'Bearer first key',
      'bearer second',
      basic('me:second'),
      basic(':first key'),
    ]) {
      expect((await handler(get('/v1/models', { authorization }))).status).toBe(200);
    }
  });

  it('are not asked for by the health check', async () => {
    expect((await handler(get('/health'))).status).toBe(200);
  });

  it('must not be empty', () => {
    const make = () => createOpenAIHandler({ models: [scriptedModel([])], apiKeys: [' '] });
    expect(make).toThrow(expect.objectContaining({ code: 'API_KEY_INVALID' }));
  });
});

describe('pages of other origins', () => {
  const page = { origin: 'https://page.example', host: 'server.example' };
  const preflight = (headers: Record<string, string>) =>
    new Request('http://localhost/v1/completions', {
      method: 'OPTIONS',
      headers: { 'access-control-request-method': 'POST', ...headers },
    });

  it('may do nothing when the owner has not said so', async () => {
    const handler = createOpenAIHandler({ models: [scriptedModel(['a'])] });
    const refused = await handler(post('/v1/completions', ask, { headers: page }));
    expect(await outcome(refused)).toMatchObject({ status: 403, code: 'origin_not_allowed' });
    expect(refused.headers.has('access-control-allow-origin')).toBe(false);
    expect((await handler(preflight(page))).status).toBe(403);
    // The server's own page is none of those.
    const own = { origin: 'http://server.example', host: 'server.example' };
    expect((await handler(post('/v1/completions', ask, { headers: own }))).status).toBe(200);
  });

  it.each<[HandlerOptions['cors'], number]>([
    [{ origins: ['https://page.example'] }, 200],
    [{ origins: '*' }, 200],
    [{ origins: ['https://other.example'] }, 403],
  ])('may do what %j says', async (cors, status) => {
    const handler = createOpenAIHandler({ models: [scriptedModel(['a'])], cors: cors! });
    const response = await handler(post('/v1/completions', ask, { headers: page }));
    expect(response.status).toBe(status);
    const allowed = status === 200 ? 'https://page.example' : null;
    expect(response.headers.get('access-control-allow-origin')).toBe(allowed);
    expect(response.headers.get('vary')).toBe('origin');
    const asked = await handler(preflight(page));
    expect([asked.status, asked.headers.get('access-control-allow-origin')]).toEqual([
      status === 200 ? 204 : 403,
      allowed,
    ]);
  });
});

describe('a request that takes too long', () => {
  it.each([false, true])('is ended (stream: %s)', async (stream) => {
    const model = scriptedModel(new Array(90).fill('x'), { pause: 5 });
    const onError = vi.fn();
    const handler = createOpenAIHandler({ models: [model], deadlineMs: 60, onError });
    const response = await handler(post('/v1/completions', { ...ask, max_tokens: 90, stream }));
    if (stream) {
      const events = await eventData(response);
      expect(JSON.parse(events.at(-1)!)).toMatchObject({ error: { code: 'deadline_exceeded' } });
    } else expect(await outcome(response)).toMatchObject({ status: 504, code: 'deadline_exceeded' });
    await vi.waitFor(() => expect(model.running).toBe(0));
    expect(onError).not.toHaveBeenCalled();
  });

  it('is ended while it waits, too', async () => {
    const model = scriptedModel(['x', 'y', 'z'], { pause: 60 });
    const handler = createOpenAIHandler({ models: [model], deadlineMs: 100 });
    const first = handler(post('/v1/completions', ask));
    const second = await handler(post('/v1/completions', { ...ask, stream: true }));
    expect((await eventData(second)).at(-1)).toContain('deadline_exceeded');
    expect((await first).status).toBe(504);
    expect(model.requests).toHaveLength(1);
  });
});

describe('a stream that nobody reads', () => {
  it('gives its turn back', async () => {
    const model = scriptedModel(new Array(90).fill('x'), { pause: 1 });
    const handler = createOpenAIHandler({ models: [model], deadlineMs: 80 });
    await handler(post('/v1/completions', { ...ask, stream: true }));
    const next = await handler(post('/v1/completions', { ...ask, max_tokens: 1, stream: true }));
    expect((await eventData(next)).at(-1)).toContain('deadline_exceeded');
    expect((await handler(post('/v1/completions', { ...ask, max_tokens: 1 }))).status).toBe(200);
  });
});

describe('models that are loading', () => {
  const source = (open: () => Promise<TextModel>) => ({ id: 'scripted', created: 1, eager: true, open });

  it('are waited for, but not for long', async () => {
    let ready: (model: TextModel) => void = () => {};
    const open = vi.fn(() => new Promise<TextModel>((resolve) => (ready = resolve)));
    const handler = createOpenAIHandler({ models: [source(open)], loadWaitMs: 20 });
    expect((await handler(get('/health'))).status).toBe(503);
    const early = await outcome(handler(post('/v1/completions', ask)));
    expect(early).toMatchObject({ status: 503, code: 'model_loading' });
    expect(early.headers.get('retry-after')).toBe('2');
    const late = handler(post('/v1/completions', ask));
    ready(scriptedModel(['a']));
    expect((await late).status).toBe(200);
    expect((await handler(get('/health'))).status).toBe(200);
    expect(open).toHaveBeenCalledTimes(1);
  });

  it('are tried again when they failed', async () => {
    const onError = vi.fn();
    const open = vi
      .fn<() => Promise<TextModel>>()
      .mockRejectedValueOnce(new Error('/secret is not there'))
      .mockResolvedValue(scriptedModel(['a']));
    const models = [{ ...source(open), eager: false }];
    const handler = createOpenAIHandler({ models, onError });
    const failed = await handler(post('/v1/completions', ask));
    expect(await failed.text()).not.toContain('secret');
    expect(failed.status).toBe(500);
    expect(onError).toHaveBeenCalledTimes(1);
    expect((await handler(post('/v1/completions', ask))).status).toBe(200);
  });
});

describe('under load', () => {
  it('a faster variant answers where the owner has said so', async () => {
    const slow = scriptedModel(['x'], { id: 'm', pause: 30 });
    const fast = scriptedModel(['y'], { id: 'm:fast', pause: 1 });
    const handler = createOpenAIHandler({
      models: [slow, fast],
      fallbacks: { m: 'm:fast' },
      fallbackWaiting: 1,
    });
    const answers = await Promise.all(
      Array.from({ length: 4 }, async (_, i) => {
        await new Promise((resolve) => setTimeout(resolve, 4 * i));
        const response = await handler(post('/v1/completions', { ...ask, model: 'm' }));
        return ((await response.json()) as { model: string }).model;
      }),
    );
    expect(answers.sort()).toEqual(['m', 'm', 'm:fast', 'm:fast']);
    const wrong = () => createOpenAIHandler({ models: [slow], fallbacks: { m: 'none' } });
    expect(wrong).toThrow(expect.objectContaining({ code: 'MODELS_INVALID' }));
  });
});

describe('the log', () => {
  it('has a line for each request, without prompts, answers and keys', async () => {
    const logger = { info: vi.fn(), error: vi.fn() };
    const options = { models: [scriptedModel(['answer'])], apiKeys: ['the-key'], logger };
    const headers = { authorization: 'Bearer the-key' };
    const body = { model: 'scripted', prompt: 'question', stream: true };
    for (const logPrompts of [false, true]) {
      const handler = createOpenAIHandler({ ...options, logPrompts });
      const response = await handler(post('/v1/completions', body, { headers }));
      await response.text();
      await handler(post('/v1/completions', { model: 'gone', prompt: 'question' }, { headers }));
      const [[fields], [refused]] = logger.info.mock.calls as [[object], [object]];
      expect(fields).toEqual({
        requestId: response.headers.get('x-request-id'),
        method: 'POST',
        route: '/v1/completions',
        status: 200,
        model: 'scripted',
        stream: true,
        choices: 1,
        promptTokens: 8,
        completionTokens: 2,
        waitedMs: expect.any(Number),
        firstTokenMs: expect.any(Number),
        cachedTokens: 0,
        promptMs: expect.any(Number),
        predictedMs: expect.any(Number),
        durationMs: expect.any(Number),
        ...(logPrompts ? { prompt: ['question'] } : {}),
      });
      expect(refused).toMatchObject({ status: 404, code: 'model_not_found' });
      const written = JSON.stringify(logger.info.mock.calls);
      expect(written.includes('question')).toBe(logPrompts);
      expect(written).not.toMatch(/answer|the-key/);
      logger.info.mockClear();
    }
  });

  it('tells faults from refusals, and who went away', async () => {
    const logger = { info: vi.fn(), error: vi.fn() };
    const models = [scriptedModel(['a', new Error('fault')], { pause: 5 })];
    const handler = createOpenAIHandler({ models, logger });
    await handler(post('/v1/completions', ask));
    await (await handler(post('/v1/completions', { ...ask, stream: true }))).text();
    expect(logger.error.mock.calls.map(([fields]) => [fields.status, fields.code])).toEqual([
      [500, 'internal_error'],
      [500, 'internal_error'],
    ]);
    const response = await handler(post('/v1/completions', { ...ask, stream: true }));
    await response.body!.cancel();
    await vi.waitFor(() => expect(logger.info).toHaveBeenCalled());
    expect(logger.info.mock.calls[0]?.[0]).toMatchObject({ stream: true });
  });
});

describe('metrics', () => {
  it('are there when they are asked for', async () => {
    const models = [scriptedModel(['a', 'b'])];
    expect((await createOpenAIHandler({ models })(get('/metrics'))).status).toBe(404);
    const handler = createOpenAIHandler({ models, metrics: true });
    await handler(post('/v1/completions', ask));
    await handler(post('/v1/completions', { ...ask, model: 'gone' }));
    await handler(get('/v1/models/no/such'));
    const response = await handler(get('/metrics'));
    expect(response.headers.get('content-type')).toMatch(/^text\/plain; version=/);
    const text = await response.text();
    for (const line of [
      'cqil_requests_total{route="/v1/completions",status="200"} 1',
      'cqil_requests_total{route="/v1/completions",status="404"} 1',
      'cqil_requests_total{route="/v1/models/*",status="404"} 1',
      'cqil_tokens_total{model="scripted",kind="prompt"} 1',
      'cqil_tokens_total{model="scripted",kind="completion"} 3',
      'cqil_requests_waiting{model="scripted"} 0',
      'cqil_model_loaded{model="scripted"} 1',
      'cqil_model_loads{model="scripted"} 1',
      'cqil_tokens_total{model="scripted",kind="cached"} 0',
      'cqil_prompt_seconds_count{model="scripted"} 1',
      'cqil_token_seconds_count{model="scripted"} 1',
      'cqil_first_token_seconds_count{model="scripted"} 1',
    ]) {
      expect(text).toContain(line);
    }
  });
});

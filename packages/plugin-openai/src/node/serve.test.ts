import { once } from 'node:events';
import { request as httpRequest } from 'node:http';
import { connect } from 'node:net';
import OpenAI from 'openai';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { createOpenAIHandler, type HandlerOptions } from '../handler.js';
import { collect } from '../test/collect.js';
import { scriptedModel } from '../test/scripted.js';
import { type Server, serve } from './serve.js';

let server: Server | undefined;

afterEach(async () => {
  await server?.close();
  server = undefined;
});

async function start(options: HandlerOptions): Promise<string> {
  server = await serve(createOpenAIHandler(options), { port: 0 });
  return server.url;
}

const messages = [{ role: 'user' as const, content: 'Hi' }];

describe('serve', () => {
  it('listens on this machine alone, and answers the client of OpenAI', async () => {
    const url = await start({ models: [scriptedModel(['Hel', 'lo'])] });
    expect(url).toMatch(/^http:\/\/127\.0\.0\.1:\d+$/);
    const client = new OpenAI({ apiKey: 'none', baseURL: `${url}/v1`, maxRetries: 0 });
    const stream = await client.chat.completions.create({ model: 'scripted', messages, stream: true });
    const chunks = await collect(stream);
    expect(chunks.map(({ choices }) => choices[0]?.delta.content ?? '').join('')).toBe('Hello');
    const missing = client.chat.completions.create({ model: 'none', messages });
    await expect(missing).rejects.toMatchObject({ status: 404 });
  });

  it('ends the generation within a token when the client closes the connection', async () => {
    const onError = vi.fn();
    const model = scriptedModel(new Array(90).fill('x'), { pause: 10 });
    const url = await start({ models: [model], onError });
    for (const stream of [true, false]) {
      const client = new AbortController();
      const asking = fetch(`${url}/v1/chat/completions`, {
        method: 'POST',
        body: JSON.stringify({ model: 'scripted', messages, stream }),
        signal: client.signal,
      }).then((response) => response.text());
      const before = model.steps;
      await vi.waitFor(() => expect(model.steps).toBeGreaterThan(before + 2));
      const { steps } = model;
      client.abort();
      await expect(asking).rejects.toThrow();
      await vi.waitFor(() => expect(model.running).toBe(0));
      expect(model.steps).toBeLessThanOrEqual(steps + 2);
    }
    expect(onError).not.toHaveBeenCalled();
  });

  it('answers 413 while the client is still sending', async () => {
    const url = await start({ models: [scriptedModel([])], limits: { bodyBytes: 1000 } });
    const status = await new Promise<number | undefined>((resolve, reject) => {
      const sending = httpRequest(`${url}/v1/completions`, { method: 'POST' }, (response) => {
        resolve(response.statusCode);
        response.resume();
      });
      sending.on('error', reject);
      sending.write('x'.repeat(5000));
    });
    expect(status).toBe(413);
    expect((await fetch(`${url}/health`)).status).toBe(200);
  });

  /** What comes back for bytes that are sent as they are. */
  const raw = (url: string, bytes: string | Buffer) =>
    new Promise<string>((resolve, reject) => {
      const { port, hostname } = new URL(url);
      const socket = connect(Number(port), hostname, () => socket.write(bytes));
      let text = '';
      socket.setEncoding('utf8').on('data', (more: string) => {
        text += more;
      });
      socket.on('close', () => resolve(text)).on('error', reject);
    });

  it.each([
    ['large headers', `GET /health HTTP/1.1\r\nx: ${'y'.repeat(40_000)}`, 431, 'headers_too_large'],
    ['headers of 1 MB', `GET /health HTTP/1.1\r\nx: ${'y'.repeat(1 << 20)}`, 431, 'headers_too_large'],
    ['what is no HTTP', 'hello?\r\n\r\n', 400, 'invalid_http'],
  ])('answers %s in its own form', async (_what, bytes, status, code) => {
    const url = await start({ models: [scriptedModel([])] });
    const answer = await raw(url, bytes);
    expect(answer).toContain(`HTTP/1.1 ${status} `);
    expect(JSON.parse(answer.slice(answer.indexOf('\r\n\r\n')))).toMatchObject({
      error: { code, param: null },
    });
  });

  it('takes a target that looks like a host for a path', async () => {
    const url = await start({ models: [scriptedModel([])] });
    const answer = await raw(
      url,
      'GET //example.com/health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n',
    );
    expect(answer).toContain('HTTP/1.1 404 ');
  });

  it('answers methods that fetch does not have', async () => {
    const url = await start({ models: [scriptedModel([])] });
    const answer = await raw(url, 'TRACE /v1/models HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n');
    expect(answer).toMatch(/^HTTP\/1\.1 405 [\s\S]*"code":"method_not_allowed"/);
  });

  it('answers 413 to 10 GB that are announced, and dripped, by the head alone', async () => {
    const url = await start({ models: [scriptedModel([])] });
    const { port, hostname } = new URL(url);
    const socket = connect(Number(port), hostname);
    let sent = 0;
    socket.write(`POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: ${1e10}\r\n\r\n{`);
    const drip = setInterval(() => socket.write(' ', () => sent++), 5);
    try {
      const [first] = (await once(socket, 'data')) as [Buffer];
      expect(first.toString()).toMatch(/^HTTP\/1\.1 413 /);
      expect(sent).toBeLessThan(100);
    } finally {
      clearInterval(drip);
      socket.on('error', () => {}).destroy();
    }
    expect((await fetch(`${url}/health`)).status).toBe(200);
  });

  it('answers a body that never ends with 408', async () => {
    const url = await start({ models: [scriptedModel([])], limits: { bodyMs: 50 } });
    const head = 'POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{';
    expect(await raw(url, head)).toMatch(/^HTTP\/1\.1 408 /);
  });

  it('answers what is under way when it closes, and refuses what comes meanwhile', async () => {
    const model = scriptedModel(new Array(10).fill('x'), { pause: 20 });
    const url = await start({ models: [model] });
    const ask = () =>
      fetch(`${url}/v1/completions`, {
        method: 'POST',
        body: JSON.stringify({ model: 'scripted', prompt: 'x' }),
      });
    const first = ask();
    await vi.waitFor(() => expect(model.running).toBe(1));
    const closing = server!.close({ drainMs: 10_000 });
    const late = await ask();
    expect([late.status, late.headers.get('retry-after')]).toEqual([503, '5']);
    expect(await late.json()).toMatchObject({ error: { code: 'server_draining', param: null } });
    const health = await fetch(`${url}/health`);
    expect([health.status, await health.json()]).toEqual([503, { status: 'draining' }]);
    expect(await (await first).json()).toMatchObject({ choices: [{ text: 'x'.repeat(10) }] });
    await closing;
    await expect(fetch(`${url}/health`)).rejects.toThrow();
  });

  it('ends what takes longer than it may when it closes', async () => {
    const model = scriptedModel(new Array(90).fill('x'), { pause: 20 });
    const url = await start({ models: [model] });
    const body = (stream: boolean) =>
      JSON.stringify({ model: 'scripted', prompt: 'x', max_tokens: 90, stream });
    const asked = [true, false].map((stream) =>
      fetch(`${url}/v1/completions`, { method: 'POST', body: body(stream) }),
    );
    await vi.waitFor(() => expect(model.running).toBe(1));
    const began = performance.now();
    await server!.close({ drainMs: 100 });
    expect(performance.now() - began).toBeLessThan(1500);
    const [streamed, whole] = await Promise.all(asked);
    expect(await streamed!.text()).toContain('"code":"server_draining"');
    expect(whole!.status).toBe(503);
    expect(model.running).toBe(0);
  });

  it('cuts off a reader that does not read', async () => {
    // More than what the sockets' buffers take.
    const model = scriptedModel(new Array(100).fill('x'.repeat(1_000_000)), { contextLength: 1000 });
    const url = await start({ models: [model], slowReaderMs: 100 });
    const sending = httpRequest(`${url}/v1/completions`, { method: 'POST' }, (response) => response.pause());
    sending.on('error', () => {});
    sending.end(JSON.stringify({ model: 'scripted', prompt: 'x', max_tokens: 100, stream: true }));
    await vi.waitFor(() => expect(model.running).toBe(1));
    await vi.waitFor(() => expect(model.running).toBe(0), 5000);
    expect(model.steps).toBeLessThan(100);
    sending.destroy();
  });

  it('says so when it cannot listen', async () => {
    const url = await start({ models: [scriptedModel([])] });
    const port = Number(new URL(url).port);
    await expect(serve(async () => new Response(), { port })).rejects.toMatchObject({
      code: 'LISTEN_FAILED',
    });
  });
});

import { request as httpRequest } from 'node:http';
import OpenAI from 'openai';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { createOpenAIHandler, type HandlerOptions } from './handler.js';
import { type Server, serve } from './serve.js';
import { collect } from './test/collect.js';
import { scriptedModel } from './test/scripted.js';

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

  it('says so when it cannot listen', async () => {
    const url = await start({ models: [scriptedModel([])] });
    const port = Number(new URL(url).port);
    await expect(serve(async () => new Response(), { port })).rejects.toMatchObject({
      code: 'LISTEN_FAILED',
    });
  });
});

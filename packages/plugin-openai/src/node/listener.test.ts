import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { serve as serveHono } from '@hono/node-server';
import express from 'express';
import fastify from 'fastify';
import { Hono } from 'hono';
import OpenAI from 'openai';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { createOpenAIHandler, type OpenAIHandler } from '../handler.js';
import { collect } from '../test/collect.js';
import { scriptedModel } from '../test/scripted.js';
import { toFastifyPlugin, toNodeListener } from './listener.js';

interface Running {
  readonly url: string;
  close(): Promise<unknown>;
}

interface Closable {
  address(): unknown;
  closeAllConnections?(): void;
  close(done: () => void): unknown;
}

const running = async (
  server: Closable,
  ready: Promise<unknown> | undefined,
  path = '',
): Promise<Running> => {
  await ready;
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}${path}`,
    close: () =>
      new Promise<void>((resolve) => {
        server.close(() => resolve());
        // Clients keep theirs for the next request.
        server.closeAllConnections?.();
      }),
  };
};
const listening = (server: NodeJS.EventEmitter) =>
  new Promise<void>((resolve) => server.once('listening', () => resolve()));

const HOSTS: Readonly<Record<string, (handler: OpenAIHandler) => Promise<Running>>> = {
  async 'node:http'(handler) {
    const server = createServer(toNodeListener(handler)).listen(0, '127.0.0.1');
    return running(server, listening(server));
  },
  async Express(handler) {
    const app = express();
    app.use('/openai', toNodeListener(handler));
    const server = app.listen(0, '127.0.0.1');
    return running(server, listening(server), '/openai');
  },
  async 'Express behind its JSON parser'(handler) {
    const app = express();
    app.use(express.json());
    app.use('/openai', toNodeListener(handler));
    const server = app.listen(0, '127.0.0.1');
    return running(server, listening(server), '/openai');
  },
  async Fastify(handler) {
    const app = fastify({ forceCloseConnections: true });
    await app.register(toFastifyPlugin(handler));
    const url = await app.listen({ port: 0, host: '127.0.0.1' });
    return { url, close: () => app.close() };
  },
  async Hono(handler) {
    const app = new Hono();
    app.get('/own', (context) => context.text('own'));
    app.all('*', (context) => handler(context.req.raw));
    const server = serveHono({ fetch: app.fetch, port: 0, hostname: '127.0.0.1' });
    return running(server, listening(server));
  },
};

describe.each(Object.keys(HOSTS))('in %s', (name) => {
  let host: Running | undefined;
  afterEach(() => host?.close());

  const start = async (handler: OpenAIHandler) => {
    host = await (HOSTS[name] as (typeof HOSTS)[string])(handler);
    return new OpenAI({ apiKey: 'none', baseURL: `${host.url}/v1`, maxRetries: 0 });
  };
  const messages = [{ role: 'user' as const, content: 'Grüße' }];

  it('answers, whole and streamed', async () => {
    const client = await start(createOpenAIHandler({ models: [scriptedModel(['Hel', 'lo'])] }));
    const whole = await client.chat.completions.create({ model: 'scripted', messages });
    expect(whole.choices[0]?.message.content).toBe('Hello');
    expect(whole.usage?.prompt_tokens).toBe('user:Grüße;'.length);
    const chunks = await collect(
      await client.chat.completions.create({ model: 'scripted', messages, stream: true }),
    );
    expect(chunks.map(({ choices }) => choices[0]?.delta.content ?? '').join('')).toBe('Hello');
    await expect(client.chat.completions.create({ model: 'none', messages })).rejects.toMatchObject({
      status: 404,
      code: 'model_not_found',
    });
  });

  it('ends the generation when the client goes away', async () => {
    const model = scriptedModel(new Array(90).fill('x'), { pause: 10 });
    const client = await start(createOpenAIHandler({ models: [model] }));
    const stream = await client.chat.completions.create({ model: 'scripted', messages, stream: true });
    let seen = 0;
    for await (const _ of stream) if (++seen === 3) break;
    await vi.waitFor(() => expect(model.running).toBe(0));
    expect(model.steps).toBeLessThan(20);
  });
});

import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { testModel } from '../../../tools/src/test-model.js';
import { createOpenAIHandler } from './handler.js';
import { type Server, serve } from './node/serve.js';
import { type LocalTextModel, openTextModel } from './runtime/open.js';
import { collect } from './test/collect.js';

describe('SmolLM2 behind the OpenAI interface', () => {
  let model: LocalTextModel;
  let server: Server;
  let client: OpenAI;
  let steps = 0;

  beforeAll(async () => {
    model = await openTextModel(testModel('q4'), { id: 'smollm2' });
    const counted = {
      ...model,
      async *generate(request: Parameters<LocalTextModel['generate']>[0]) {
        for await (const piece of model.generate(request)) {
          steps++;
          yield piece;
        }
      },
    };
    server = await serve(createOpenAIHandler({ models: [counted] }), { port: 0 });
    client = new OpenAI({ apiKey: 'none', baseURL: `${server.url}/v1`, maxRetries: 0 });
  });
  afterAll(async () => {
    await server?.close();
    await model?.dispose();
  });

  const question = {
    model: 'smollm2',
    messages: [{ role: 'user' as const, content: 'What is the capital of France?' }],
    temperature: 0,
    max_completion_tokens: 40,
  };

  it('answers, whole and streamed alike', async () => {
    const whole = await client.chat.completions.create(question);
    const answer = whole.choices[0]?.message.content ?? '';
    expect(answer).toMatch(/\p{L}{3}/u);
    expect(whole.usage?.completion_tokens).toBeLessThanOrEqual(40);
    const chunks = await collect(
      await client.chat.completions.create({
        ...question,
        stream: true,
        stream_options: { include_usage: true },
      }),
    );
    expect(chunks.map(({ choices }) => choices[0]?.delta.content ?? '').join('')).toBe(answer);
    expect(chunks.at(-1)?.usage).toEqual(whole.usage);
  });

  it('ends at a stop string', async () => {
    const whole = await client.chat.completions.create(question);
    const answer = whole.choices[0]?.message.content ?? '';
    const stop = answer.slice(20, 26);
    const { choices, usage } = await client.chat.completions.create({ ...question, stop: [stop] });
    expect(choices[0]?.message.content).toBe(answer.slice(0, answer.indexOf(stop)));
    expect(choices[0]?.finish_reason).toBe('stop');
    expect(usage?.completion_tokens).toBeLessThan(whole.usage?.completion_tokens ?? 0);
  });

  it('samples repeatably with a seed', async () => {
    const story = { model: 'smollm2', prompt: 'Once upon a time', max_tokens: 12, temperature: 1.2 };
    const text = async (seed: number) =>
      (await client.completions.create({ ...story, seed })).choices[0]?.text;
    expect(await text(1)).toBe(await text(1));
    expect(await text(1)).not.toBe(await text(2));
  });

  it('ends the generation within a token or two of a closed connection, and serves the next', async () => {
    const stream = await client.completions.create({
      model: 'smollm2',
      prompt: 'Once upon a time',
      max_tokens: 2000,
      stream: true,
    });
    let seen = 0;
    for await (const _ of stream) if (++seen === 5) break;
    // What runs on now is at most what was on its way.
    await new Promise((resolve) => setTimeout(resolve, 300));
    const before = steps;
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(steps).toBe(before);
    const { usage } = await client.completions.create({ model: 'smollm2', prompt: 'Once', max_tokens: 2 });
    expect(usage?.completion_tokens).toBe(2);
    await vi.waitFor(async () => expect((await fetch(`${server.url}/health`)).status).toBe(200));
  });
});

describe('the memory of SmolLM2', () => {
  /** What opening it and some answers add to a process of its own, in bytes, and what the model says of that. */
  const measured = async (folder: string) => {
    const plugin = new URL('../dist/index.js', import.meta.url).href;
    const script = `
      const { openTextModel } = await import(${JSON.stringify(plugin)});
      globalThis.gc();
      const before = process.memoryUsage.rss();
      const model = await openTextModel(${JSON.stringify(folder)});
      const signal = new AbortController().signal;
      const answer = async (i) => {
        const promptIds = await model.encode(i + ' word'.repeat(100));
        const request = { promptIds, maxTokens: 4, temperature: 0, topP: 1, seed: 1, signal };
        for await (const _ of model.generate(request)) continue;
      };
      await Promise.all([1, 2, 3, 4, 5, 6, 7, 8].map(answer));
      globalThis.gc();
      console.log(JSON.stringify({ grown: process.memoryUsage.rss() - before, said: model.bytes }));
      process.exit(0);`;
    const args = ['--expose-gc', '--input-type=module', '-e', script];
    const { stdout } = await promisify(execFile)(process.execPath, args);
    return JSON.parse(stdout) as { grown: number; said: number };
  };

  it.each(['q4', 'fp32'] as const)('is about what its files say (%s)', async (dtype) => {
    const { grown, said } = await measured(testModel(dtype));
    expect(grown / said).toBeGreaterThan(0.7);
    expect(grown / said).toBeLessThan(1.4);
  });
});

import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { HumanMessage, ToolMessage } from '@langchain/core/messages';
import { tool as langchainTool } from '@langchain/core/tools';
import { ChatOpenAI } from '@langchain/openai';
import { generateText, Output, stepCountIs, streamText, tool } from 'ai';
import OpenAI from 'openai';
import { zodResponseFormat } from 'openai/helpers/zod';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { createOpenAIHandler } from './handler.js';
import { type Server, serve } from './node/serve.js';
import { type LocalTextModel, openTextModel } from './runtime/open.js';
import { collect } from './test/collect.js';
import { scriptedModel } from './test/scripted.js';
import { type TinyModel, tinyModel } from './test/tiny-model.js';

/**
 * Clients that others wrote, against the server over the network: with a real model (of random weights) where what
 * it says does not matter, and with one that plays its part where it does.
 */
let tiny: TinyModel;
let model: LocalTextModel;
let server: Server;
let baseURL: string;
const KEY = 'a key';

const CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>';
const actor = scriptedModel(
  ({ promptIds }) =>
    String.fromCodePoint(...promptIds).includes('tool(weather):') ? ['It is ', 'sunny.'] : [...CALL],
  { id: 'actor', toolFormat: 'hermes', contextLength: 10_000 },
);

beforeAll(async () => {
  tiny = tinyModel();
  model = await openTextModel(tiny.folder, { id: 'tiny' });
  server = await serve(createOpenAIHandler({ models: [model, actor], apiKeys: [KEY] }), { port: 0 });
  baseURL = `${server.url}/v1`;
});
afterAll(async () => {
  await server.close();
  await model.dispose();
  tiny[Symbol.dispose]();
});

const city = z.object({ name: z.enum(['Rome', 'Paris']), size: z.number().int().min(1).max(9) });
/** The model's weights are random: it must be told to end texts. */
const SHORT = { temperature: 0, seed: 1 };

describe("OpenAI's client", () => {
  const client = () => new OpenAI({ apiKey: KEY, baseURL, maxRetries: 0 });

  it('gets the same by every way to ask', async () => {
    const chat = client().chat.completions;
    const ask = {
      model: 'tiny',
      messages: [{ role: 'user' as const, content: 'Grüße' }],
      max_tokens: 12,
      ...SHORT,
    };
    const whole = await chat.create({ ...ask, logprobs: true, top_logprobs: 2 });
    const text = whole.choices[0]?.message.content;
    const tokens = whole.choices[0]?.logprobs?.content ?? [];
    expect(Buffer.from(tokens.flatMap(({ bytes }) => bytes ?? [])).toString('utf8')).toBe(text);
    const streamed = await collect(await chat.create({ ...ask, stream: true }));
    expect(streamed.map(({ choices }) => choices[0]?.delta.content ?? '').join('')).toBe(text);
    // The client's own putting together, which is strict about what comes when.
    const helper = chat.stream({ ...ask, stream_options: { include_usage: true } });
    expect((await helper.finalChatCompletion()).choices[0]?.message.content).toBe(text);
    const { prompt_tokens_details: details, ...usage } = (await helper.finalChatCompletion()).usage!;
    const { prompt_tokens_details: first, ...before } = whole.usage!;
    expect(usage).toEqual(before);
    // The prompt was read for an earlier request, all but its last token.
    expect(first).toEqual({ cached_tokens: 0 });
    expect(details).toEqual({ cached_tokens: usage.prompt_tokens - 1 });
    const response = await client().responses.create({
      model: 'tiny',
      input: 'Grüße',
      max_output_tokens: 12,
      temperature: 0,
    });
    expect(response.output_text).toBe(text);
    const prompt = model.encodeChat(ask.messages) as number[];
    const completion = await client().completions.create({ model: 'tiny', prompt, max_tokens: 12, ...SHORT });
    expect(completion.choices[0]?.text).toBe(text);
  });

  it('parses answers that are held to a schema', async () => {
    const { choices } = await client().chat.completions.parse({
      model: 'tiny',
      messages: [{ role: 'user', content: 'A city?' }],
      response_format: zodResponseFormat(city, 'city'),
      temperature: 1,
    });
    expect(city.safeParse(choices[0]?.message.parsed).success).toBe(true);
  });

  it('runs tools until there is an answer', async () => {
    const cities: unknown[] = [];
    const runner = client().chat.completions.runTools({
      model: 'actor',
      stream: true,
      messages: [{ role: 'user', content: 'Weather in Rome?' }],
      tools: [
        {
          type: 'function',
          function: {
            name: 'weather',
            description: 'The weather in a city',
            parse: JSON.parse,
            parameters: { type: 'object', properties: { city: { type: 'string' } } },
            function: (given: { city: string }) => {
              cities.push(given);
              return 'sun';
            },
          },
        },
      ],
    });
    expect(await runner.finalContent()).toBe('It is sunny.');
    expect(cities).toEqual([{ city: 'Rome' }]);
  });

  it('knows errors for what they are', async () => {
    const wrongKey = new OpenAI({ apiKey: 'wrong', baseURL, maxRetries: 0 });
    await expect(wrongKey.models.list()).rejects.toThrow(OpenAI.AuthenticationError);
    await expect(client().models.retrieve('none')).rejects.toThrow(OpenAI.NotFoundError);
    const empty = client().completions.create({ model: 'tiny', prompt: '' });
    await expect(empty).rejects.toThrow(OpenAI.BadRequestError);
  });
});

describe('the AI SDK', () => {
  const provider = () =>
    createOpenAICompatible({
      name: 'cqil',
      baseURL,
      apiKey: KEY,
      includeUsage: true,
      supportsStructuredOutputs: true,
    });

  it('generates and streams text', async () => {
    const ask = { model: provider()('tiny'), prompt: 'Grüße', maxOutputTokens: 12, ...SHORT };
    const whole = await generateText(ask);
    const streamed = streamText(ask);
    const parts = await collect(streamed.textStream);
    expect(parts.join('')).toBe(whole.text);
    expect(await streamed.usage).toMatchObject({ outputTokens: whole.usage.outputTokens });
    expect(whole.usage.outputTokens).toBeGreaterThan(0);
    expect(await streamed.finishReason).toBe(whole.finishReason);
  });

  it('generates objects', async () => {
    const { output } = await generateText({
      model: provider()('tiny'),
      prompt: 'A city?',
      output: Output.object({ schema: city }),
      temperature: 1,
    });
    expect(city.safeParse(output).success).toBe(true);
  });

  it.each(['whole', 'streamed'])('calls tools (%s)', async (way) => {
    const cities: unknown[] = [];
    const ask = {
      model: provider()('actor'),
      prompt: 'Weather in Rome?',
      stopWhen: stepCountIs(3),
      tools: {
        weather: tool({
          description: 'The weather in a city',
          inputSchema: z.object({ city: z.string() }),
          execute: async (given) => {
            cities.push(given);
            return 'sun';
          },
        }),
      },
    };
    const text = way === 'whole' ? (await generateText(ask)).text : await streamText(ask).text;
    expect([text, cities]).toEqual(['It is sunny.', [{ city: 'Rome' }]]);
  });
});

describe('LangChain', () => {
  const chat = (name: string, more: object = {}) =>
    new ChatOpenAI({ model: name, apiKey: KEY, configuration: { baseURL }, maxRetries: 0, ...more });

  it('invokes and streams', async () => {
    const tinyChat = chat('tiny', { temperature: 0, maxTokens: 12 });
    const whole = await tinyChat.invoke('Grüße');
    const chunks = await collect(await tinyChat.stream('Grüße'));
    expect(chunks.map(({ content }) => content).join('')).toBe(whole.content);
    const usage = whole.usage_metadata as unknown as { output_tokens: number } | undefined;
    expect(usage?.output_tokens).toBeGreaterThan(0);
    expect(chunks.find((chunk) => chunk.usage_metadata)?.usage_metadata).toMatchObject({
      output_tokens: usage?.output_tokens,
    });
  });

  it('calls tools', async () => {
    const weather = langchainTool(async () => 'sun', {
      name: 'weather',
      description: 'The weather in a city',
      schema: z.object({ city: z.string() }),
    });
    const asking = chat('actor').bindTools([weather]);
    const question = new HumanMessage('Weather in Rome?');
    const called = await asking.invoke([question]);
    expect(called.tool_calls).toMatchObject([{ name: 'weather', args: { city: 'Rome' } }]);
    const [call] = called.tool_calls ?? [];
    const answer = await asking.invoke([
      question,
      called,
      new ToolMessage({ tool_call_id: call?.id ?? '', content: await weather.invoke({ city: 'Rome' }) }),
    ]);
    expect(answer.content).toBe('It is sunny.');
    let gathered: (typeof called & { concat(other: unknown): unknown }) | undefined;
    for await (const chunk of await asking.stream([question])) {
      gathered = (gathered === undefined ? chunk : gathered.concat(chunk as never)) as never;
    }
    expect(gathered?.tool_calls).toMatchObject([{ name: 'weather', args: { city: 'Rome' } }]);
  });

  it('gets what a schema says', async () => {
    const structured = chat('tiny', { temperature: 1 }).withStructuredOutput(city, {
      name: 'city',
      method: 'jsonSchema',
    });
    expect(city.safeParse(await structured.invoke('A city?')).success).toBe(true);
  });

  it('speaks the responses interface, too', async () => {
    const speaking = chat('tiny', { temperature: 0, maxTokens: 12, useResponsesApi: true });
    const whole = await speaking.invoke('Grüße');
    expect(whole.text.length).toBeGreaterThan(0);
    const chunks = await collect(await speaking.stream('Grüße'));
    expect(chunks.map((chunk) => chunk.text).join('')).toBe(whole.text);
  });
});

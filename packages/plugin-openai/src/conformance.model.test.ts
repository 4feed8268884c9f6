import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { ChatOpenAI } from '@langchain/openai';
import { generateText, streamText } from 'ai';
import OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { testModel } from '../../../tools/src/test-model.js';
import { createOpenAIHandler } from './handler.js';
import { type Server, serve } from './node/serve.js';
import { type LocalTextModel, openTextModel } from './runtime/open.js';
import { collect } from './test/collect.js';

/** In float32, where a token does not depend on who else is in the step. */
describe('SmolLM2, float32, to clients that others wrote', () => {
  const TOKENS = 24;
  const QUESTIONS = [
    'What is the capital of France?',
    'Why is the sky blue?',
    'Name three fruits.',
    'Count to ten.',
  ];
  let model: LocalTextModel;
  let server: Server;
  let baseURL: string;
  let client: OpenAI;

  beforeAll(async () => {
    model = await openTextModel(testModel('fp32'), { id: 'smollm2' });
    server = await serve(createOpenAIHandler({ models: [model] }), { port: 0 });
    baseURL = `${server.url}/v1`;
    client = new OpenAI({ apiKey: 'none', baseURL, maxRetries: 0 });
  });
  afterAll(async () => {
    await server?.close();
    await model?.dispose();
  });

  /** What the engine itself says, alone. */
  async function engine(promptIds: readonly number[]): Promise<string> {
    const { signal } = new AbortController();
    const request = { promptIds, maxTokens: TOKENS, temperature: 0, topP: 1, seed: 0, signal };
    return (await collect(model.generate(request))).map(({ text }) => text).join('');
  }

  const answerTo = async (content: string) => engine(await model.encodeChat([{ role: 'user', content }]));

  it('says over every endpoint, streamed or not, alone or among others, what the engine says', async () => {
    const common = { model: 'smollm2', temperature: 0 };
    const ways: ((text: string) => Promise<string>)[] = [
      async (content) => {
        const messages = [{ role: 'user' as const, content }];
        const ask = { ...common, messages, max_completion_tokens: TOKENS };
        return (await client.chat.completions.create(ask)).choices[0]?.message.content ?? '';
      },
      async (content) => {
        const messages = [{ role: 'user' as const, content }];
        const ask = { ...common, messages, max_completion_tokens: TOKENS, stream: true as const };
        const chunks = await collect(await client.chat.completions.create(ask));
        return chunks.map(({ choices }) => choices[0]?.delta.content ?? '').join('');
      },
      async (input) =>
        (await client.responses.create({ ...common, input, max_output_tokens: TOKENS })).output_text,
      async (input) => {
        const ask = { ...common, input, max_output_tokens: TOKENS, stream: true as const };
        const events = await collect(await client.responses.create(ask));
        return events
          .map((event) => (event.type === 'response.output_text.delta' ? event.delta : ''))
          .join('');
      },
    ];
    const plain: ((text: string) => Promise<string>)[] = [
      async (prompt) =>
        (await client.completions.create({ ...common, prompt, max_tokens: TOKENS })).choices[0]?.text ?? '',
      async (prompt) => {
        const ask = { ...common, prompt, max_tokens: TOKENS, stream: true as const };
        const chunks = await collect(await client.completions.create(ask));
        return chunks.map(({ choices }) => choices[0]?.text ?? '').join('');
      },
    ];
    const cases: { readonly run: () => Promise<string>; readonly expected: string }[] = [];
    for (const question of QUESTIONS) {
      const chat = await answerTo(question);
      const text = await engine(await model.encode(question));
      for (const way of ways) cases.push({ run: () => way(question), expected: chat });
      for (const way of plain) cases.push({ run: () => way(question), expected: text });
    }
    for (const { run, expected } of cases.slice(0, 6)) expect(await run()).toBe(expected);
    // Eight at a time; as one ends, the next joins the others in the middle of theirs.
    const left = [...cases, ...cases.toReversed()];
    let done = 0;
    await Promise.all(
      Array.from({ length: 8 }, async () => {
        for (let next = left.shift(); next !== undefined; next = left.shift()) {
          expect(await next.run()).toBe(next.expected);
          done++;
        }
      }),
    );
    expect(done).toBe(2 * cases.length);
  });

  it('talks to the AI SDK', async () => {
    const provider = createOpenAICompatible({ name: 'cqil', baseURL, includeUsage: true });
    const ask = {
      model: provider('smollm2'),
      prompt: QUESTIONS[0]!,
      maxOutputTokens: TOKENS,
      temperature: 0,
    };
    const expected = await answerTo(QUESTIONS[0]!);
    const whole = await generateText(ask);
    expect(whole.text).toBe(expected);
    const streamed = streamText(ask);
    expect((await collect(streamed.textStream)).join('')).toBe(expected);
    expect(await streamed.usage).toMatchObject({ outputTokens: whole.usage.outputTokens });
  });

  it('talks to LangChain', async () => {
    const options = { apiKey: 'none', configuration: { baseURL }, maxRetries: 0 };
    const chat = new ChatOpenAI({ model: 'smollm2', temperature: 0, maxTokens: TOKENS, ...options });
    const expected = await answerTo(QUESTIONS[1]!);
    expect((await chat.invoke(QUESTIONS[1]!)).content).toBe(expected);
    const chunks = await collect(await chat.stream(QUESTIONS[1]!));
    expect(chunks.map(({ content }) => content).join('')).toBe(expected);
  });
});

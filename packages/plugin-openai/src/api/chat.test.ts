import type OpenAI from 'openai';
import { describe, expect, it } from 'vitest';
import { clientOf } from '../test/client.js';
import { collect } from '../test/collect.js';
import { scriptedModel } from '../test/scripted.js';

type Request = Omit<OpenAI.Chat.ChatCompletionCreateParamsNonStreaming, 'model'>;
type Choice = OpenAI.Chat.ChatCompletion.Choice;

const messages = [{ role: 'user' as const, content: 'Hi' }];
const weather = {
  type: 'function' as const,
  function: {
    name: 'weather',
    parameters: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] },
  },
};

/** The choices of a stream put together, as a whole answer has them. */
async function streamed(client: OpenAI, request: Request): Promise<unknown[]> {
  const chunks = await collect(
    await client.chat.completions.create({ model: 'scripted', ...request, stream: true }),
  );
  expect(new Set(chunks.map(({ id }) => id)).size).toBe(1);
  const choices: {
    message: { role?: string; content: string; calls: { id: string; name: string; arguments: string }[] };
    logprobs: object[];
    finish: string | null;
  }[] = [];
  for (const chunk of chunks) {
    for (const { index, delta, logprobs, finish_reason } of chunk.choices) {
      choices[index] ??= { message: { content: '', calls: [] }, logprobs: [], finish: null };
      const choice = choices[index];
      if (delta.role !== undefined) {
        expect(choice.message).toEqual({ content: '', calls: [] });
        choice.message.role = delta.role;
      }
      choice.message.content += delta.content ?? '';
      for (const call of delta.tool_calls ?? []) {
        choice.message.calls[call.index] ??= { id: call.id!, name: call.function!.name!, arguments: '' };
        choice.message.calls[call.index]!.arguments += call.function?.arguments ?? '';
      }
      choice.logprobs.push(...(logprobs?.content ?? []));
      expect(choice.finish).toBeNull();
      choice.finish = finish_reason;
      if (finish_reason !== null) expect(delta).toEqual({});
    }
  }
  return choices.map(({ message, logprobs, finish }) => ({
    role: message.role,
    content: message.content,
    calls: message.calls.map(({ name, arguments: given }) => [name, given]),
    logprobs,
    finish,
  }));
}

const said = ({ message, logprobs, finish_reason }: Choice) => ({
  role: message.role,
  content: message.content ?? '',
  calls: (message.tool_calls ?? []).map((call) =>
    call.type === 'function' ? [call.function.name, call.function.arguments] : [],
  ),
  logprobs: logprobs?.content ?? [],
  finish: finish_reason,
});

describe('choices', () => {
  it('are as many as asked for, each with a seed of its own', async () => {
    const model = scriptedModel(({ seed }) => [`answer ${seed}`, '.']);
    const client = clientOf({ models: [model] });
    const request = { messages, n: 3, seed: 40 };
    const whole = await client.chat.completions.create({ model: 'scripted', ...request });
    expect(whole.choices.map(({ index, message }) => [index, message.content])).toEqual([
      [0, 'answer 40.'],
      [1, 'answer 41.'],
      [2, 'answer 42.'],
    ]);
    expect(whole.usage).toMatchObject({ prompt_tokens: 8, completion_tokens: 9, total_tokens: 17 });
    expect(await streamed(client, request)).toEqual(whole.choices.map(said));
    expect(model.peak).toBe(1);
  });

  it('take seeds as large as they come', async () => {
    const model = scriptedModel(['x']);
    const client = clientOf({ models: [model] });
    for (const seed of [Number.MAX_SAFE_INTEGER, -(2 ** 63), 2 ** 63]) {
      await client.chat.completions.create({ model: 'scripted', messages, n: 2, seed });
    }
    for (const { seed } of model.requests) expect(Number.isSafeInteger(seed)).toBe(true);
  });
});

describe('log probabilities', () => {
  it('are told of every token that is in the answer, whole and streamed', async () => {
    const model = scriptedModel(['on', 'e t', 'wo', ' th', 'ree']);
    const client = clientOf({ models: [model] });
    const request = { messages, logprobs: true, top_logprobs: 2, stop: ['wo t'] };
    const whole = await client.chat.completions.create({ model: 'scripted', ...request });
    expect(whole.choices[0]?.message.content).toBe('one t');
    expect(whole.choices[0]?.logprobs).toEqual({
      content: [
        {
          token: 'on',
          logprob: -1,
          bytes: [111, 110],
          top_logprobs: [
            { token: 'on', logprob: -1, bytes: [111, 110] },
            { token: '?', logprob: -2, bytes: [63] },
          ],
        },
        expect.objectContaining({ token: 'e t', logprob: -2 }),
      ],
      refusal: null,
    });
    expect(await streamed(client, request)).toEqual(whole.choices.map(said));
  });

  it('are null where nobody asked, and refused where the model has none', async () => {
    const client = clientOf({ models: [scriptedModel(['a'])] });
    const { choices } = await client.chat.completions.create({ model: 'scripted', messages });
    expect(choices[0]?.logprobs).toBeNull();
    const { logprobs: _, ...mute } = scriptedModel(['a']);
    const asked = clientOf({ models: [mute] }).chat.completions.create({
      model: 'scripted',
      messages,
      logprobs: true,
    });
    await expect(asked).rejects.toMatchObject({ status: 400, param: 'logprobs' });
  });
});

describe('biases', () => {
  it('reach the model, and must be of its tokens', async () => {
    const model = scriptedModel(['a']);
    const client = clientOf({ models: [model] });
    const request = { model: 'scripted', messages, presence_penalty: 1, frequency_penalty: 0.5 };
    await client.chat.completions.create({ ...request, logit_bias: { 5: -100 } });
    expect(model.requests[0]).toMatchObject({
      logitBias: new Map([[5, -100]]),
      presencePenalty: 1,
      frequencyPenalty: 0.5,
    });
    const unknown = client.chat.completions.create({ ...request, logit_bias: { 99999999: 1 } });
    await expect(unknown).rejects.toMatchObject({ status: 400, param: 'logit_bias', code: 'invalid_token' });
  });
});

describe('tools', () => {
  const call = '<tool_call>{"name": "weather", "arguments": {"city": "Paris"}}</tool_call>';

  it('are shown to the model, and what it calls is read', async () => {
    const model = scriptedModel(['I look. ', ...call], { toolFormat: 'hermes', contextLength: 1000 });
    const client = clientOf({ models: [model] });
    const request = { messages, tools: [weather] };
    const whole = await client.chat.completions.create({ model: 'scripted', ...request });
    expect(String.fromCodePoint(...model.requests[0]!.promptIds)).toContain('tools:[{"type":"function"');
    expect(whole.choices).toMatchObject([
      {
        message: {
          content: 'I look. ',
          tool_calls: [
            {
              id: expect.stringMatching(/^call_\w+$/),
              type: 'function',
              function: { name: 'weather', arguments: '{"city": "Paris"}' },
            },
          ],
        },
        finish_reason: 'tool_calls',
      },
    ]);
    expect(await streamed(client, request)).toEqual(whole.choices.map(said));
  });

  it('that must be called are: the answer begins with a call, and can be nothing else', async () => {
    const schemas: unknown[] = [];
    const model = scriptedModel(
      ({ schema }) => [schema === undefined ? 'no' : '{"name":"weather","arguments":{"city":"Rome"}}'],
      {
        toolFormat: 'hermes',
        contextLength: 1000,
        checkSchema: async (schema) => void schemas.push(schema),
      },
    );
    const client = clientOf({ models: [model] });
    const time = { type: 'function' as const, function: { name: 'time' } };
    const request = {
      messages,
      tools: [weather, time],
      tool_choice: { type: 'function' as const, function: { name: 'weather' } },
    };
    const whole = await client.chat.completions.create({ model: 'scripted', ...request });
    expect(whole.choices.map(said)).toMatchObject([
      { content: '', calls: [['weather', '{"city":"Rome"}']], finish: 'tool_calls' },
    ]);
    expect(whole.choices[0]?.message.content).toBeNull();
    expect(String.fromCodePoint(...model.requests[0]!.promptIds)).toMatch(/<tool_call>\n$/);
    expect(model.requests[0]?.schema).toEqual({
      type: 'object',
      properties: { name: { const: 'weather' }, arguments: weather.function.parameters },
      required: ['name', 'arguments'],
      additionalProperties: false,
    });
    expect(schemas[0]).toEqual(model.requests[0]?.schema);
    expect(await streamed(client, request)).toEqual(whole.choices.map(said));
    await client.chat.completions.create({ model: 'scripted', ...request, tool_choice: 'required' });
    expect(model.requests.at(-1)?.schema).toMatchObject({
      anyOf: [{}, { properties: { name: { const: 'time' } } }],
    });
    const none = await client.chat.completions.create({ model: 'scripted', ...request, tool_choice: 'none' });
    expect(none.choices[0]?.message.content).toBe('no');
  });

  it('are refused by a model that knows none', async () => {
    const client = clientOf({ models: [scriptedModel(['a'])] });
    const asked = client.chat.completions.create({ model: 'scripted', messages, tools: [weather] });
    await expect(asked).rejects.toMatchObject({ status: 400, param: 'tools', code: 'unsupported_parameter' });
  });

  it('answer, and are named to the model', async () => {
    const model = scriptedModel(['a'], { toolFormat: 'hermes', contextLength: 1000 });
    const client = clientOf({ models: [model] });
    await client.chat.completions.create({
      model: 'scripted',
      messages: [
        ...messages,
        {
          role: 'assistant',
          tool_calls: [
            { id: 'c', type: 'function', function: { name: 'weather', arguments: '{"city":"Rome"}' } },
          ],
        },
        { role: 'tool', tool_call_id: 'c', content: 'Sun' },
      ],
      tools: [weather],
    });
    expect(String.fromCodePoint(...model.requests[0]!.promptIds)).toContain(
      'assistant:[{"name":"weather","arguments":{"city":"Rome"}}];tool(weather):Sun;',
    );
  });
});

describe('formats', () => {
  const schema = { type: 'object', properties: { a: { type: 'integer' } } };
  const response_format = { type: 'json_schema' as const, json_schema: { name: 's', schema } };

  it('reach the model when it can be held to them', async () => {
    const model = scriptedModel(['{}'], { checkSchema: async () => {} });
    const client = clientOf({ models: [model] });
    await client.chat.completions.create({ model: 'scripted', messages, response_format });
    await client.chat.completions.create({
      model: 'scripted',
      messages,
      response_format: { type: 'json_object' },
    });
    expect(model.requests.map((request) => request.schema)).toEqual([schema, { type: 'object' }]);
  });

  it('are refused when it cannot, or not to this one', async () => {
    const refused = (options: Parameters<typeof scriptedModel>[1]) =>
      clientOf({ models: [scriptedModel([], options)] }).chat.completions.create({
        model: 'scripted',
        messages,
        response_format,
      });
    await expect(refused({})).rejects.toMatchObject({
      status: 400,
      param: 'response_format',
      code: 'unsupported_parameter',
    });
    const checkSchema = async () => {
      throw new Error('#/not is not supported');
    };
    await expect(refused({ checkSchema })).rejects.toMatchObject({
      status: 400,
      param: 'response_format',
      code: 'invalid_json_schema',
      message: expect.stringContaining('#/not is not supported'),
    });
  });
});

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ApiError } from '../http/error.js';
import { chatParameters as parseChat } from './chat-parameters.js';
import { completionParameters as parseCompletion } from './completion-parameters.js';
import { LIMITS } from './limits.js';
import { responseParameters as parseResponse } from './response-parameters.js';

const chatParameters = (body: unknown) => parseChat(body, LIMITS);
const completionParameters = (body: unknown) => parseCompletion(body, LIMITS);
const responseParameters = (body: unknown) => parseResponse(body, LIMITS);

const chat = { model: 'm', messages: [{ role: 'user', content: 'Hi' }] };

function refusal(make: () => unknown) {
  try {
    make();
  } catch (cause) {
    if (cause instanceof ApiError) return { status: cause.status, param: cause.param, code: cause.code };
    throw cause;
  }
  return undefined;
}

const plain = {
  model: 'm',
  messages: [{ role: 'user', content: 'Hi' }],
  maxTokens: undefined,
  temperature: 1,
  topP: 1,
  topK: undefined,
  minP: undefined,
  repetitionPenalty: undefined,
  presencePenalty: 0,
  frequencyPenalty: 0,
  logitBias: new Map(),
  seed: undefined,
  stop: [],
  stream: false,
  includeUsage: false,
  timingsPerToken: false,
  n: 1,
  logprobs: undefined,
  schema: undefined,
  tools: [],
  callable: [],
  choice: 'auto',
};
const tool = (name: string) => ({
  type: 'function',
  function: { name, parameters: { type: 'object', properties: {} } },
});
const schemaFormat = (schema: unknown) => ({
  response_format: { type: 'json_schema', json_schema: { name: 's', strict: true, schema } },
});

describe('chatParameters', () => {
  it('has defaults', () => {
    expect(chatParameters(chat)).toEqual(plain);
  });

  it('takes everything that is supported', () => {
    expect(
      chatParameters({
        messages: [
          { role: 'developer', content: 'Be brief.' },
          { role: 'user', content: ['Hel', 'lo'].map((text) => ({ type: 'text', text })) },
        ],
        model: 'm',
        max_completion_tokens: 5,
        temperature: 0.5,
        top_p: 0.9,
        top_k: 40,
        min_p: 0.1,
        repetition_penalty: 1.1,
        presence_penalty: 1,
        frequency_penalty: -0.5,
        logit_bias: { '7': -100, '12': 3.5 },
        seed: -3,
        n: 2,
        stop: 'END',
        stream: true,
        stream_options: { include_usage: true },
        timings_per_token: true,
        logprobs: true,
        top_logprobs: 3,
        ...schemaFormat({ type: 'object' }),
        tools: [tool('f'), tool('g')],
        parallel_tool_calls: false,
        metadata: { who: 'me' },
        user: 'me',
      }),
    ).toEqual({
      ...plain,
      messages: [
        { role: 'system', content: 'Be brief.' },
        { role: 'user', content: 'Hello' },
      ],
      maxTokens: 5,
      temperature: 0.5,
      topP: 0.9,
      topK: 40,
      minP: 0.1,
      repetitionPenalty: 1.1,
      presencePenalty: 1,
      frequencyPenalty: -0.5,
      logitBias: new Map([
        [7, -100],
        [12, 3.5],
      ]),
      seed: -3,
      n: 2,
      stop: ['END'],
      stream: true,
      includeUsage: true,
      timingsPerToken: true,
      logprobs: 3,
      schema: { type: 'object' },
      tools: [tool('f'), tool('g')],
      callable: [tool('f'), tool('g')],
    });
  });

  it('reads what tools said, and which they were', () => {
    const call = { id: 'c1', type: 'function', function: { name: 'f', arguments: '{"a":1}' } };
    const messages = [
      { role: 'user', content: 'Weather?' },
      { role: 'assistant', content: null, tool_calls: [call] },
      { role: 'tool', tool_call_id: 'c1', content: 'Rain' },
    ];
    expect(chatParameters({ model: 'm', messages }).messages).toEqual([
      messages[0],
      {
        role: 'assistant',
        content: '',
        tool_calls: [{ ...call, function: { name: 'f', arguments: { a: 1 } } }],
      },
      { role: 'tool', tool_call_id: 'c1', name: 'f', content: 'Rain' },
    ]);
  });

  it('knows which tools must be called', () => {
    const tools = [tool('f'), tool('g')];
    const choose = (tool_choice: unknown) => {
      const { choice, callable } = chatParameters({ ...chat, tools, tool_choice });
      return [choice, callable.map((one) => one.function.name)];
    };
    expect(choose('none')).toEqual(['none', []]);
    expect(choose('required')).toEqual(['required', ['f', 'g']]);
    expect(choose({ type: 'function', function: { name: 'g' } })).toEqual(['required', ['g']]);
  });

  it('takes what asks for nothing', () => {
    const defaults = {
      n: 1,
      frequency_penalty: 0,
      presence_penalty: 0,
      logprobs: false,
      modalities: ['text'],
      store: false,
      service_tier: 'auto',
      tools: null,
      stop: null,
      max_tokens: null,
      response_format: { type: 'text' },
    };
    expect(chatParameters({ ...chat, ...defaults })).toEqual(plain);
  });

  it('ignores what nobody knows', () => {
    const messages = [{ role: 'user', content: 'Hi', name: 'me', weight: 1 }];
    expect(chatParameters({ ...chat, messages, no_such_thing: 1, safety_identifier: 'x' })).toEqual(plain);
  });

  it('takes a nucleus of nothing for the most likely token', () => {
    expect(chatParameters({ ...chat, top_p: 0 })).toMatchObject({ temperature: 0, topP: 1 });
  });

  const image = [
    { type: 'text', text: 'a' },
    { type: 'image_url', image_url: { url: 'x' } },
  ];
  it.each([
    ['audio', { audio: {} }],
    ['modalities', { modalities: ['text', 'audio'] }],
    ['reasoning_effort', { reasoning_effort: 'low' }],
    ['store', { store: true }],
    ['functions', { functions: [] }],
    ['web_search_options', { web_search_options: {} }],
    ['messages[0].content[1].type', { messages: [{ role: 'user', content: image }] }],
  ])('refuses %s as unsupported', (param, more) => {
    expect(refusal(() => chatParameters({ ...chat, ...more }))).toEqual({
      status: 400,
      param,
      code: 'unsupported_parameter',
    });
  });

  it.each([
    ['model', { model: undefined }],
    ['messages', { messages: [] }],
    ['messages', { messages: undefined }],
    ['messages[0].role', { messages: [{ role: 'ghost', content: 'x' }] }],
    ['messages[0].tool_call_id', { messages: [{ role: 'tool', content: 'x' }] }],
    ['messages[0].content', { messages: [{ role: 'user' }] }],
    ['messages[0].content', { messages: [{ role: 'assistant' }] }],
    ['max_tokens', { max_tokens: 0 }],
    ['max_tokens', { max_tokens: 1.5 }],
    ['temperature', { temperature: 3 }],
    ['temperature', { temperature: '1' }],
    ['top_p', { top_p: 1.1 }],
    ['presence_penalty', { presence_penalty: -3 }],
    ['logit_bias.x', { logit_bias: { x: 1 } }],
    ['logit_bias.7', { logit_bias: { 7: 101 } }],
    ['seed', { seed: 0.5 }],
    ['n', { n: 0 }],
    ['stop', { stop: '' }],
    ['stream', { stream: 'yes' }],
    ['top_logprobs', { top_logprobs: 1 }],
    ['response_format.type', { response_format: { type: 'xml' } }],
    ['response_format.json_schema', { response_format: { type: 'json_schema' } }],
    ['tools[0].function.name', { tools: [tool('no spaces')] }],
    ['tools', { tools: [tool('f'), tool('f')] }],
    ['tool_choice', { tool_choice: 'required' }],
    ['tool_choice', { tools: [tool('f')], tool_choice: { type: 'function', function: { name: 'g' } } }],
    [
      'response_format',
      { tools: [tool('f')], tool_choice: 'required', response_format: { type: 'json_object' } },
    ],
    ['metadata', { metadata: Object.fromEntries(Array.from({ length: 17 }, (_, i) => [`${i}`, ''])) }],
  ])('refuses a wrong %s (%#)', (param, more) => {
    expect(refusal(() => chatParameters({ ...chat, ...more }))).toEqual({
      status: 400,
      param,
      code: 'invalid_value',
    });
  });

  const deep = JSON.parse(`${'{"items":'.repeat(40)}{}${'}'.repeat(40)}`);
  it.each([
    ['n', { n: 1e9 }],
    ['top_logprobs', { logprobs: true, top_logprobs: 1000 }],
    ['stop', { stop: ['1', '2', '3', '4', '5'] }],
    ['stop', { stop: 'x'.repeat(1e6) }],
    ['logit_bias', { logit_bias: Object.fromEntries(Array.from({ length: 2000 }, (_, i) => [i, 1])) }],
    ['tools', { tools: Array.from({ length: 100 }, (_, i) => tool(`f${i}`)) }],
    ['messages', { messages: new Array(2000).fill(chat.messages[0]) }],
    ['response_format.json_schema.schema', schemaFormat({ title: 'x'.repeat(1e5) })],
    ['response_format.json_schema.schema', schemaFormat(deep)],
  ])('has a limit for %s (%#)', (param, more) => {
    expect(refusal(() => chatParameters({ ...chat, ...more }))).toEqual({
      status: 400,
      param,
      code: 'limit_exceeded',
    });
  });

  it('refuses what contradicts itself', () => {
    const streamOptions = refusal(() => chatParameters({ ...chat, stream_options: {} }));
    expect(streamOptions).toMatchObject({ param: 'stream_options' });
    const twice = refusal(() => chatParameters({ ...chat, max_tokens: 1, max_completion_tokens: 1 }));
    expect(twice).toMatchObject({ param: 'max_tokens' });
  });

  it('takes or refuses any JSON, and never fails in another way', () => {
    const keys = fc.constantFrom(
      ...['messages', 'stop', 'seed', 'logit_bias', 'tools', 'tool_choice', 'response_format', 'metadata'],
      ...['prompt', 'input', 'text', 'include', 'stream_options', 'n', 'logprobs', 'echo'],
    );
    fc.assert(
      fc.property(fc.jsonValue(), fc.jsonValue(), keys, (body, value, key) => {
        refusal(() => chatParameters(body));
        refusal(() => chatParameters({ ...chat, [key]: value }));
        refusal(() => completionParameters({ model: 'm', prompt: 'p', [key]: value }));
        refusal(() => responseParameters({ model: 'm', input: 'p', [key]: value }));
      }),
    );
  });
});

describe('completionParameters', () => {
  it.each<[unknown, unknown]>([
    ['Once', ['Once']],
    [
      ['Once', 'Twice'],
      ['Once', 'Twice'],
    ],
    [[1, 2], [[1, 2]]],
    [
      [[1, 2], [3]],
      [[1, 2], [3]],
    ],
  ])('takes the prompt %j', (prompt, prompts) => {
    expect(completionParameters({ model: 'm', prompt, best_of: 1 }).prompts).toEqual(prompts);
  });

  it('takes an echo without an answer', () => {
    const given = { model: 'm', prompt: 'p', echo: true, max_tokens: 0, logprobs: 5 };
    expect(completionParameters(given)).toMatchObject({ echo: true, maxTokens: 0, logprobs: 5 });
  });

  it.each([
    ['prompt', { prompt: [] }, 'invalid_value'],
    ['prompt', { prompt: [[]] }, 'invalid_value'],
    ['prompt', { prompt: [-1] }, 'invalid_value'],
    ['prompt', { prompt: new Array(200).fill('a') }, 'limit_exceeded'],
    ['suffix', { suffix: 'x' }, 'unsupported_parameter'],
    ['best_of', { best_of: 3 }, 'unsupported_parameter'],
    ['max_tokens', { max_tokens: 0 }, 'invalid_value'],
    ['logprobs', { logprobs: 100 }, 'limit_exceeded'],
  ])('refuses %s (%#)', (param, more, code) => {
    const make = () => completionParameters({ model: 'm', prompt: 'p', ...more });
    expect(refusal(make)).toMatchObject({ status: 400, param: expect.stringMatching(`^${param}`), code });
  });
});

describe('responseParameters', () => {
  const given = { model: 'm', input: 'Hi' };

  it('reads a text, or items', () => {
    expect(responseParameters({ ...given, instructions: 'Be brief.' }).messages).toEqual([
      { role: 'system', content: 'Be brief.' },
      { role: 'user', content: 'Hi' },
    ]);
    const input = [
      { role: 'user', content: [{ type: 'input_text', text: 'Weather?' }] },
      { type: 'message', role: 'assistant', content: [{ type: 'output_text', text: 'I look.' }] },
      { type: 'function_call', call_id: 'c', name: 'f', arguments: '{}' },
      { type: 'function_call_output', call_id: 'c', output: 'Rain' },
    ];
    expect(responseParameters({ ...given, input }).messages).toEqual([
      { role: 'user', content: 'Weather?' },
      {
        role: 'assistant',
        content: 'I look.',
        tool_calls: [{ id: 'c', type: 'function', function: { name: 'f', arguments: {} } }],
      },
      { role: 'tool', tool_call_id: 'c', name: 'f', content: 'Rain' },
    ]);
  });

  it.each([
    ['previous_response_id', { previous_response_id: 'x' }],
    ['store', { store: true }],
    ['background', { background: true }],
    ['truncation', { truncation: 'auto' }],
    ['include[0]', { include: ['file_search_call.results'] }],
    ['tools[0].type', { tools: [{ type: 'web_search' }] }],
    ['input[0].content[0].type', { input: [{ role: 'user', content: [{ type: 'input_image' }] }] }],
  ])('refuses %s as unsupported', (param, more) => {
    expect(refusal(() => responseParameters({ ...given, ...more }))).toEqual({
      status: 400,
      param,
      code: 'unsupported_parameter',
    });
  });

  it.each([
    ['input', { input: [] }],
    ['input[0].role', { input: [{ content: 'x' }] }],
    ['input[0].call_id', { input: [{ type: 'function_call', name: 'f', arguments: '' }] }],
    ['tools[0].name', { tools: [{ type: 'function' }] }],
    ['max_output_tokens', { max_output_tokens: 0 }],
  ])('refuses a wrong %s (%#)', (param, more) => {
    expect(refusal(() => responseParameters({ ...given, ...more }))).toMatchObject({ status: 400, param });
  });
});

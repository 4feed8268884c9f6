import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ApiError } from './error.js';
import { chatParameters, completionParameters } from './parameters.js';

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

describe('chatParameters', () => {
  it('has defaults', () => {
    expect(chatParameters(chat)).toEqual({
      model: 'm',
      messages: [{ role: 'user', content: 'Hi' }],
      maxTokens: undefined,
      temperature: 1,
      topP: 1,
      seed: undefined,
      stop: [],
      stream: false,
      includeUsage: false,
    });
  });

  it('takes everything that is supported', () => {
    expect(
      chatParameters({
        ...chat,
        messages: [
          { role: 'developer', content: 'Be brief.' },
          {
            role: 'user',
            content: [
              { type: 'text', text: 'Hel' },
              { type: 'text', text: 'lo' },
            ],
          },
        ],
        max_completion_tokens: 5,
        temperature: 0.5,
        top_p: 0.9,
        seed: -3,
        stop: 'END',
        stream: true,
        stream_options: { include_usage: true },
        user: 'me',
      }),
    ).toEqual({
      model: 'm',
      messages: [
        { role: 'system', content: 'Be brief.' },
        { role: 'user', content: 'Hello' },
      ],
      maxTokens: 5,
      temperature: 0.5,
      topP: 0.9,
      seed: -3,
      stop: ['END'],
      stream: true,
      includeUsage: true,
    });
  });

  it('takes what asks for nothing', () => {
    const defaults = {
      n: 1,
      frequency_penalty: 0,
      presence_penalty: 0,
      logprobs: false,
      tools: null,
      stop: null,
    };
    const given = { ...chat, ...defaults, response_format: { type: 'text' }, max_tokens: null };
    expect(chatParameters(given)).toEqual(chatParameters(chat));
  });

  it('takes a nucleus of nothing for the most likely token', () => {
    expect(chatParameters({ ...chat, top_p: 0 })).toMatchObject({ temperature: 0, topP: 1 });
  });

  it.each([
    ['tools', { tools: [] }],
    ['response_format', { response_format: { type: 'json_object' } }],
    ['logprobs', { logprobs: true }],
    ['n', { n: 2 }],
    ['frequency_penalty', { frequency_penalty: 0.5 }],
    ['reasoning_effort', { reasoning_effort: 'low' }],
    ['no_such_thing', { no_such_thing: 1 }],
    ['messages[0].name', { messages: [{ role: 'user', content: 'Hi', name: 'me' }] }],
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
    ['messages[0].role', { messages: [{ role: 'tool', content: 'x' }] }],
    [
      'messages[0].content',
      { messages: [{ role: 'user', content: [{ type: 'image_url', image_url: {} }] }] },
    ],
    ['messages[0].content', { messages: [{ role: 'user' }] }],
    ['max_tokens', { max_tokens: 0 }],
    ['max_tokens', { max_tokens: 1.5 }],
    ['temperature', { temperature: 3 }],
    ['temperature', { temperature: '1' }],
    ['top_p', { top_p: 1.1 }],
    ['seed', { seed: 0.5 }],
    ['stop', { stop: ['1', '2', '3', '4', '5'] }],
    ['stop', { stop: '' }],
    ['stream', { stream: 'yes' }],
  ])('refuses a wrong %s (%#)', (param, more) => {
    expect(refusal(() => chatParameters({ ...chat, ...more }))).toEqual({
      status: 400,
      param,
      code: 'invalid_value',
    });
  });

  it('refuses what contradicts itself', () => {
    expect(refusal(() => chatParameters({ ...chat, stream_options: {} }))).toMatchObject({
      param: 'stream_options',
    });
    expect(refusal(() => chatParameters({ ...chat, max_tokens: 1, max_completion_tokens: 1 }))).toMatchObject(
      {
        param: 'max_tokens',
      },
    );
  });

  it('takes or refuses any JSON, and never fails in another way', () => {
    fc.assert(
      fc.property(
        fc.jsonValue(),
        fc.jsonValue(),
        fc.constantFrom(...Object.keys(chat), 'stop', 'seed'),
        (body, value, key) => {
          refusal(() => chatParameters(body));
          refusal(() => chatParameters({ ...chat, [key]: value }));
          refusal(() => completionParameters({ model: 'm', prompt: 'p', [key]: value }));
        },
      ),
    );
  });
});

describe('completionParameters', () => {
  it('takes one text', () => {
    expect(completionParameters({ model: 'm', prompt: 'Once' }).prompt).toBe('Once');
    expect(completionParameters({ model: 'm', prompt: ['Once'], best_of: 1, echo: false }).prompt).toBe(
      'Once',
    );
  });

  it.each([
    ['prompt', { prompt: ['a', 'b'] }, 'invalid_value'],
    ['prompt', { prompt: [1, 2] }, 'invalid_value'],
    ['suffix', { suffix: 'x' }, 'unsupported_parameter'],
    ['echo', { echo: true }, 'unsupported_parameter'],
    ['messages', { messages: [] }, 'unsupported_parameter'],
    ['max_completion_tokens', { max_completion_tokens: 1 }, 'unsupported_parameter'],
  ])('refuses %s (%#)', (param, more, code) => {
    const make = () => completionParameters({ model: 'm', prompt: 'p', ...more });
    expect(refusal(make)).toEqual({ status: 400, param, code });
  });
});

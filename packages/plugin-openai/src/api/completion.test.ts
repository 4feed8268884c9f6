import { describe, expect, it } from 'vitest';
import { createOpenAIHandler } from '../handler.js';
import { clientOf, eventData, post } from '../test/client.js';
import { collect } from '../test/collect.js';
import { scriptedModel } from '../test/scripted.js';

const ids = (text: string) => [...text].map((character) => character.codePointAt(0)!);

describe('several prompts', () => {
  it.each([
    ['texts', ['ab', 'c']],
    ['tokens', [ids('ab'), ids('c')]],
  ])('as %s have their choices one after the other', async (_what, prompt) => {
    const model = scriptedModel(({ promptIds, seed }) => [String.fromCodePoint(...promptIds), `!${seed}`]);
    const client = clientOf({ models: [model] });
    const whole = await client.completions.create({ model: 'scripted', prompt, n: 2, seed: 1 });
    expect(whole.choices.map(({ index, text }) => [index, text])).toEqual([
      [0, 'ab!1'],
      [1, 'ab!2'],
      [2, 'c!1'],
      [3, 'c!2'],
    ]);
    // A prompt that is answered twice is read for one.
    expect(whole.usage).toMatchObject({ prompt_tokens: 3, completion_tokens: 12 });
  });
});

describe('an echo', () => {
  const request = { model: 'scripted', prompt: 'né', echo: true, max_tokens: 2, logprobs: 1 };
  const logprobs = {
    tokens: ['n', 'é', 'x', 'y'],
    token_logprobs: [null, -1, -1, -2],
    top_logprobs: [null, { é: -1, '?': -2 }, { x: -1, '?': -2 }, { y: -2, '?': -3 }],
    text_offset: [0, 1, 2, 3],
  };

  it.each([
    ['a text', 'né'],
    ['tokens', ids('né')],
  ])('of %s comes before the answer, with log probabilities', async (_what, prompt) => {
    const client = clientOf({ models: [scriptedModel(['x', 'y', 'z'])] });
    const whole = await client.completions.create({ ...request, prompt });
    expect(whole.choices).toEqual([{ index: 0, text: 'néxy', logprobs, finish_reason: 'length' }]);
    const chunks = await collect(await client.completions.create({ ...request, prompt, stream: true }));
    expect(chunks.map(({ choices }) => choices[0]?.text).join('')).toBe('néxy');
    const told = chunks.map(({ choices }) => choices[0]?.logprobs).filter((one) => one != null);
    expect({
      tokens: told.flatMap((one) => one.tokens),
      token_logprobs: told.flatMap((one) => one.token_logprobs),
      top_logprobs: told.flatMap((one) => one.top_logprobs),
      text_offset: told.flatMap((one) => one.text_offset),
    }).toEqual(logprobs);
  });

  it('may stand alone', async () => {
    const model = scriptedModel(['x']);
    const client = clientOf({ models: [model] });
    const alone = await client.completions.create({ ...request, max_tokens: 0 });
    expect(alone.choices).toEqual([
      {
        index: 0,
        text: 'né',
        logprobs: {
          tokens: ['n', 'é'],
          token_logprobs: [null, -1],
          top_logprobs: logprobs.top_logprobs.slice(0, 2),
          text_offset: [0, 1],
        },
        finish_reason: 'length',
      },
    ]);
    expect(alone.usage?.completion_tokens).toBe(0);
    // Without log probabilities there is nothing for the model to do.
    const { logprobs: _, ...plain } = request;
    const read = model.requests.length;
    const streamed = await collect(
      await client.completions.create({ ...plain, max_tokens: 0, stream: true }),
    );
    expect(streamed.map(({ choices }) => [choices[0]?.text, choices[0]?.finish_reason])).toEqual([
      ['né', null],
      ['', 'length'],
    ]);
    expect(model.requests).toHaveLength(read);
  });

  it('fills the context, and not more', async () => {
    const client = clientOf({ models: [scriptedModel(['x'], { contextLength: 4 })] });
    const full = await client.completions.create({ ...request, prompt: 'abcd', max_tokens: 0 });
    expect(full.choices[0]?.text).toBe('abcd');
    const handler = createOpenAIHandler({ models: [scriptedModel(['x'], { contextLength: 4 })] });
    const response = await handler(post('/v1/completions', { ...request, prompt: 'abcde', max_tokens: 0 }));
    expect([response.status, await response.json()]).toEqual([
      400,
      {
        error: {
          message: "The model's context is 4 tokens; the prompt has 5 and 0 are asked for.",
          type: 'invalid_request_error',
          param: 'prompt',
          code: 'context_length_exceeded',
          n_prompt_tokens: 5,
          n_ctx: 4,
        },
      },
    ]);
  });
});

describe('tokens', () => {
  it('that the model does not have are refused', async () => {
    const client = clientOf({ models: [scriptedModel(['x'])] });
    await expect(
      client.completions.create({ model: 'scripted', prompt: [99_999_999] }),
    ).rejects.toMatchObject({
      status: 400,
      param: 'prompt',
      code: 'invalid_token',
    });
  });

  it('and texts become each other', async () => {
    const handler = createOpenAIHandler({ models: [scriptedModel([])] });
    const ask = async (path: string, body: object) => {
      const response = await handler(post(path, { model: 'scripted', ...body }));
      return [response.status, await response.json()];
    };
    expect(await ask('/tokenize', { prompt: 'né' })).toEqual([
      200,
      { tokens: [110, 233], count: 2, max_model_len: 100 },
    ]);
    expect(await ask('/tokenize', { messages: [{ role: 'user', content: 'a' }] })).toMatchObject([
      200,
      { tokens: ids('user:a;') },
    ]);
    expect(await ask('/detokenize', { tokens: [110, 233] })).toEqual([200, { prompt: 'né' }]);
    expect(await ask('/tokenize', {})).toMatchObject([400, { error: { param: 'prompt' } }]);
    expect(await ask('/detokenize', { tokens: [-1] })).toMatchObject([
      400,
      { error: { param: 'tokens[0]' } },
    ]);
    expect(await ask('/detokenize', { tokens: [99_999_999] })).toMatchObject([
      400,
      { error: { param: 'tokens' } },
    ]);
  });
});

describe('embeddings', () => {
  it('are there where the model has them', async () => {
    const embed = async (tokens: readonly number[]) => Float32Array.of(tokens.length, 0.5);
    const client = clientOf({ models: [scriptedModel([], { embed })] });
    // OpenAI's client asks for base64 by itself.
    const { data, usage } = await client.embeddings.create({ model: 'scripted', input: ['ab', 'c'] });
    expect(data.map(({ embedding }) => embedding)).toEqual([
      [2, 0.5],
      [1, 0.5],
    ]);
    expect(usage).toEqual({ prompt_tokens: 3, total_tokens: 3 });
    const plain = await client.embeddings.create({
      model: 'scripted',
      input: 'ab',
      encoding_format: 'float',
    });
    expect(plain.data[0]?.embedding).toEqual([2, 0.5]);
  });

  it('are a plain 404 with a reason where it has not', async () => {
    const client = clientOf({ models: [scriptedModel([])] });
    await expect(client.embeddings.create({ model: 'scripted', input: 'a' })).rejects.toMatchObject({
      status: 404,
      code: 'model_has_no_embeddings',
      message: expect.stringContaining('no hidden states'),
    });
  });
});

describe('a stream', () => {
  it('holds a comment while there is nothing to say', async () => {
    const handler = createOpenAIHandler({ models: [scriptedModel(['a'], { pause: 120 })], pingMs: 30 });
    const response = await handler(post('/v1/completions', { model: 'scripted', prompt: 'x', stream: true }));
    const copy = response.clone();
    expect(await copy.text()).toMatch(/^(: ping\n\n)+data: /);
    expect((await eventData(response)).at(-1)).toBe('[DONE]');
  });
});

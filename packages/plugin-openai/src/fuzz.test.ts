import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { createOpenAIHandler, type OpenAIHandler } from './handler.js';
import { type LocalTextModel, openTextModel } from './runtime/open.js';
import { scriptedModel } from './test/scripted.js';
import { type TinyModel, tinyModel } from './test/tiny-model.js';

/** How many requests of each kind; more find more. */
const RUNS = Number(process.env.CQIL_FUZZ_RUNS ?? 2000);

const PATHS = [
  '/v1/chat/completions',
  '/v1/completions',
  '/v1/responses',
  '/v1/embeddings',
  '/tokenize',
  '/detokenize',
];
const PARAMETERS = [
  ...[
    'model',
    'messages',
    'prompt',
    'input',
    'tokens',
    'max_tokens',
    'max_completion_tokens',
    'max_output_tokens',
  ],
  ...[
    'temperature',
    'top_p',
    'top_k',
    'min_p',
    'seed',
    'stop',
    'n',
    'best_of',
    'logprobs',
    'top_logprobs',
    'echo',
  ],
  ...[
    'logit_bias',
    'presence_penalty',
    'frequency_penalty',
    'repetition_penalty',
    'stream',
    'stream_options',
  ],
  ...['response_format', 'tools', 'tool_choice', 'parallel_tool_calls', 'metadata', 'user', 'store', 'text'],
  ...[
    'instructions',
    'include',
    'previous_response_id',
    'reasoning',
    'encoding_format',
    'dimensions',
    'suffix',
  ],
];
const NASTY: fc.Arbitrary<unknown> = fc.constantFrom<unknown>(
  ...[
    1e9,
    -1,
    0,
    1.5,
    1e308,
    2 ** 53,
    -0,
    '',
    ' ',
    '\u0000',
    '\ud800',
    'x'.repeat(3000),
    [],
    [[]],
    {},
    [{}],
    [null],
  ],
  ...[
    null,
    true,
    false,
    '1',
    { __proto__: null },
    { constructor: 1 },
    { type: 'json_schema' },
    { type: 'function' },
  ],
  ...[{ type: 'json_schema', json_schema: { name: 's', schema: { $ref: '#' } } }, 'none', 'auto', 'required'],
  ...[
    [{ role: 'user', content: 'Hi' }],
    [{ role: 'tool', content: [] }],
    [{ type: 'function', function: {} }],
  ],
);
const value = fc.oneof(NASTY, fc.jsonValue({ maxDepth: 3 }));
const good = {
  '/v1/chat/completions': { model: 'm', messages: [{ role: 'user', content: 'Hi' }] },
  '/v1/completions': { model: 'm', prompt: 'Hi' },
  '/v1/responses': { model: 'm', input: 'Hi' },
  '/v1/embeddings': { model: 'm', input: 'Hi' },
  '/tokenize': { model: 'm', prompt: 'Hi' },
  '/detokenize': { model: 'm', tokens: [1] },
} as Readonly<Record<string, object>>;

let handler: OpenAIHandler;
const onError = vi.fn();
beforeAll(() => {
  const model = scriptedModel(['a', 'b'], { id: 'm', toolFormat: 'hermes', checkSchema: async () => {} });
  handler = createOpenAIHandler({ models: [model], onError, maxWaiting: 1 });
});

/** Answers well or with a refusal that says what is wrong; nothing else, and in time. */
async function check(request: Request, answering = handler, milliseconds = 1000): Promise<void> {
  const began = performance.now();
  const response = await answering(request);
  const text = await response.text();
  expect(performance.now() - began).toBeLessThan(milliseconds);
  if (response.status === 200) {
    expect(text).not.toContain('internal_error');
    return;
  }
  expect(response.status, text).toBeGreaterThanOrEqual(400);
  expect(response.status, text).toBeLessThan(500);
  const { error } = JSON.parse(text) as { error: Record<string, unknown> };
  expect(error).toMatchObject({
    message: expect.any(String),
    type: expect.any(String),
    code: expect.any(String),
  });
  expect(error.param === null || typeof error.param === 'string').toBe(true);
  expect(onError).not.toHaveBeenCalled();
}

const post = (path: string, body: string | Uint8Array<ArrayBuffer>) =>
  new Request(`http://localhost${path}`, { method: 'POST', body });

describe('a real model', () => {
  let folder: TinyModel;
  let model: LocalTextModel;
  beforeAll(async () => {
    folder = tinyModel();
    model = await openTextModel(folder.folder, { id: 'm', contextLength: 40 });
  });
  afterAll(async () => {
    await model.dispose();
    folder[Symbol.dispose]();
  });

  it('answers or refuses whatever the parameters are', async () => {
    const real = createOpenAIHandler({ models: [model], onError });
    const more = fc.dictionary(fc.constantFrom(...PARAMETERS), value, { minKeys: 1, maxKeys: 3 });
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...PATHS), more, (path, body) =>
        check(post(path, JSON.stringify({ max_tokens: 2, ...good[path], ...body })), real, 20_000),
      ),
      { numRuns: Math.ceil(RUNS / 4) },
    );
  });
});

describe('requests that are not what they should be', () => {
  it('with parameters of any value have an answer or a refusal', async () => {
    const more = fc.dictionary(fc.constantFrom(...PARAMETERS), value, { minKeys: 1, maxKeys: 4 });
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...PATHS), more, (path, body) =>
        check(post(path, JSON.stringify({ ...good[path], ...body }))),
      ),
      { numRuns: RUNS },
    );
  });

  it('with any JSON have a refusal', async () => {
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...PATHS), fc.jsonValue(), (path, body) =>
        check(post(path, JSON.stringify(body))),
      ),
      { numRuns: RUNS },
    );
  });

  it('with any bytes have a refusal', async () => {
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...PATHS), fc.uint8Array({ maxLength: 200 }), (path, bytes) =>
        check(post(path, Uint8Array.from(bytes))),
      ),
      { numRuns: RUNS },
    );
  });

  it('with half of a good body, or a good one with something changed, have an answer or a refusal', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...PATHS),
        fc.nat(),
        fc.nat(),
        fc.string({ maxLength: 5 }),
        (path, from, length, inserted) => {
          const text = JSON.stringify(good[path]);
          const start = from % text.length;
          return check(post(path, text.slice(0, start) + inserted + text.slice(start + (length % 4))));
        },
      ),
      { numRuns: RUNS },
    );
  });

  it('to any path, by any method, have an answer or a refusal', async () => {
    const path = fc.oneof(
      fc.webPath(),
      fc.constantFrom(...PATHS, '/v1/models/', '/v1/models/%', '/v1/models/%2e%2e'),
    );
    const method = fc.constantFrom('GET', 'POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS', 'HEAD');
    await fc.assert(
      fc.asyncProperty(path, method, async (at, by) => {
        const response = await handler(new Request(`http://localhost/${at.slice(1)}`, { method: by }));
        expect(response.status).toBeLessThan(500);
        await response.text();
      }),
      { numRuns: RUNS },
    );
  });
});

import { cpSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { DecoderSession, generate } from '@cqil/runtime-gpu';
import { Tokenizer } from '@huggingface/tokenizers';
import OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createOpenAIHandler } from '../handler.js';
import { ModelLostError, type TextRequest } from '../model.js';
import { collect } from '../test/collect.js';
import { type TinyModel, tinyModel } from '../test/tiny-model.js';
import { type LocalTextModel, openTextModel, textModelMemory } from './open.js';

/** The same model by a graph that can take several sequences at a time. */
const GROUPED = fileURLToPath(new URL('../../../../testdata/genai-fp32/llama/', import.meta.url));

let tiny: TinyModel;
let model: LocalTextModel;

beforeAll(async () => {
  tiny = tinyModel();
  model = await openTextModel(tiny.folder, { id: 'tiny', graph: 'onnx/model.onnx' });
});

afterAll(async () => {
  await model.dispose();
  tiny[Symbol.dispose]();
});

/** Short texts are read where they are. */
const encode = (text: string) => model.encode(text) as readonly number[];
const encodeChat = (...given: Parameters<LocalTextModel['encodeChat']>) =>
  model.encodeChat(...given) as readonly number[];

const request = (more: Partial<TextRequest> = {}): TextRequest => ({
  promptIds: encode('Once upon a time'),
  maxTokens: 40,
  temperature: 0,
  topP: 1,
  seed: 1,
  signal: new AbortController().signal,
  ...more,
});

describe('openTextModel', () => {
  it('reads what the folder says', () => {
    expect(model).toMatchObject({ id: 'tiny', contextLength: 256 });
    expect(model.created).toBeGreaterThan(1_500_000_000);
    // One token for each byte, after the three special ones.
    expect(encode('é')).toEqual([0xc3 + 3, 0xa9 + 3]);
    const chat = encodeChat([{ role: 'user', content: 'a' }]);
    const bytes = (text: string) => [...new TextEncoder().encode(text)].map((byte) => byte + 3);
    expect(chat).toEqual([1, ...bytes('user: a\n'), 1, ...bytes('assistant: ')]);
  });

  it('generates the tokens of the runtime, as text', async () => {
    const decoder = await DecoderSession.open(join(tiny.folder, 'onnx/model.onnx'));
    const { promptIds } = request();
    const { ids } = await generate(decoder, { promptIds, maxTokens: 40, eosIds: [2] });
    await decoder.dispose();
    const pieces = await collect(model.generate(request()));
    expect(pieces.reduce((sum, { tokens }) => sum + tokens, 0)).toBe(ids.length);
    expect(pieces.at(-1)?.finishReason).toBe(ids.at(-1) === 2 ? 'stop' : 'length');
    const read = (name: string) => JSON.parse(readFileSync(join(tiny.folder, name), 'utf8'));
    const tokenizer = new Tokenizer(read('tokenizer.json'), read('tokenizer_config.json'));
    expect(pieces.map(({ text }) => text).join('')).toBe(
      tokenizer.decode(ids, { skip_special_tokens: true }),
    );
  });

  it('tells log probabilities of answer and prompt', async () => {
    const promptIds = encode('Once é');
    const asked = request({ promptIds, maxTokens: 3, logprobs: 2, promptLogprobs: true });
    const [first, ...rest] = await collect(model.generate(asked));
    const prompt = first?.prompt ?? [];
    expect(prompt.map(({ token }) => token)).toEqual([...'Once ', 'bytes:\\xc3', 'bytes:\\xa9']);
    expect(prompt[0]).toMatchObject({ logprob: null, top: [] });
    for (const { logprob, top } of prompt.slice(1)) {
      expect(logprob).toBeLessThan(0);
      expect(top).toHaveLength(2);
      expect(top[0]!.logprob).toBeGreaterThanOrEqual(Math.max(top[1]!.logprob, logprob!));
    }
    // What is likeliest is what is taken.
    expect(rest).toHaveLength(3);
    for (const { logprob } of rest) expect(logprob?.logprob).toBe(logprob?.top[0]?.logprob);
    // As if the answer had been a prompt.
    const decoder = await DecoderSession.open(join(tiny.folder, 'onnx/model.onnx'));
    const { ids } = await generate(decoder, { promptIds, maxTokens: 3, eosIds: [2] });
    await decoder.dispose();
    const again = await collect(
      model.generate(
        request({ promptIds: [...promptIds, ...ids], maxTokens: 0, logprobs: 0, promptLogprobs: true }),
      ),
    );
    expect(again.map(({ finishReason }) => finishReason)).toEqual([undefined, 'length']);
    const told = again[0]?.prompt?.slice(-3).map(({ logprob }) => logprob) ?? [];
    for (const [i, value] of told.entries()) expect(value).toBeCloseTo(rest[i]!.logprob!.logprob!, 3);
  });

  it('heeds biases, penalties and schemas', async () => {
    const text = async (more: Partial<TextRequest>) =>
      (await collect(model.generate(request(more)))).map((piece) => piece.text).join('');
    const a = encode('a')[0]!;
    expect(await text({ maxTokens: 5, logitBias: new Map([[a, 100]]) })).toBe('aaaaa');
    const penalized = await text({ maxTokens: 5, logitBias: new Map([[a, 3]]), frequencyPenalty: 2 });
    expect(penalized).not.toBe('aaaaa');
    const schema = { type: 'object', properties: { b: { enum: [true, 12] } }, required: ['b'] };
    await model.checkSchema?.(schema);
    expect(JSON.parse(await text({ schema, temperature: 1 }))).toEqual({
      b: expect.toSatisfy((b) => b === true || b === 12),
    });
    await expect(model.checkSchema?.({ not: {} })).rejects.toThrow('not is not supported');
  });

  it('shows tools to the model, and reads what it has called', async () => {
    expect(model.toolFormat).toBe('hermes');
    const tools = [{ type: 'function' as const, function: { name: 'f' } }];
    const calls = [{ id: 'c', type: 'function' as const, function: { name: 'f', arguments: { x: 1 } } }];
    const ids = encodeChat([{ role: 'assistant', content: '', tool_calls: calls }], {
      tools,
      answerStart: '<tool_call>\n',
    });
    const said = model.decode?.(ids, { special: true });
    expect(said).toContain('tools: [{"type": "function", "function": {"name": "f"}}]');
    expect(said).toContain('<tool_call>{"name": "f", "arguments": {"x": 1}}</tool_call>');
    expect(said?.endsWith('<s>assistant: <tool_call>\n')).toBe(true);
    expect(model.decode?.(ids)).not.toContain('<s>');
  });

  it('repeats itself with a seed, and not with another', async () => {
    const text = async (seed: number) =>
      (await collect(model.generate(request({ temperature: 1, seed })))).map((piece) => piece.text).join('');
    expect(await text(3)).toBe(await text(3));
    expect(await text(3)).not.toBe(await text(4));
  });

  it('ends when nobody reads on, when it is told to, and is free for the next', async () => {
    for await (const piece of model.generate(request({ maxTokens: 200 }))) {
      if (piece.tokens === 1) break;
    }
    const stop = new AbortController();
    const stopped = collect(model.generate(request({ maxTokens: 200, signal: stop.signal })));
    setTimeout(() => stop.abort(new Error('enough')), 20);
    await expect(stopped).rejects.toThrow('enough');
    const [before, piece] = await collect(model.generate(request({ maxTokens: 1 })));
    expect([before, piece]).toMatchObject([{ cachedTokens: expect.any(Number) }, { tokens: 1 }]);
  });

  it('answers several at a time with what each gets alone, and knows prompts again', async () => {
    cpSync(GROUPED, join(tiny.folder, 'gqa'), { recursive: true });
    const open = (parallel: number) =>
      openTextModel(tiny.folder, { id: 'tiny', graph: 'gqa/model.onnx', parallel });
    await using together = await open(3);
    await using alone = await open(1);
    expect([together.concurrency, alone.concurrency, model.concurrency]).toEqual([3, 1, 1]);
    const prompts = ['Once upon a time there was', 'The capital of', 'x', 'Once upon a time there was one'];
    const text = async (served: LocalTextModel, prompt: string) => {
      const promptIds = served.encode(prompt) as readonly number[];
      const pieces = await collect(served.generate(request({ promptIds, maxTokens: 12 })));
      return { text: pieces.map((piece) => piece.text).join(''), cached: pieces[0]?.cachedTokens };
    };
    const parallel = await Promise.all(prompts.slice(0, 3).map((prompt) => text(together, prompt)));
    const again = await text(together, prompts[3]!);
    const inTurn = [];
    for (const prompt of prompts) inTurn.push(await text(alone, prompt));
    expect([...parallel, again].map((one) => one.text)).toEqual(inTurn.map((one) => one.text));
    expect(again.cached).toBeGreaterThan(20);
    expect(inTurn[3]!.cached).toBe(again.cached);
    expect(parallel.map(({ cached }) => cached)).toEqual([0, 0, 0]);
  });

  it('answers the client of OpenAI', async () => {
    const handler = createOpenAIHandler({ models: [model] });
    const client = new OpenAI({
      apiKey: 'none',
      baseURL: 'http://localhost/v1',
      fetch: (url, init) => handler(new Request(url, init)),
      maxRetries: 0,
    });
    const ask = {
      model: 'tiny',
      messages: [{ role: 'user' as const, content: 'Grüße' }],
      max_tokens: 20,
      temperature: 0,
    };
    const whole = await client.chat.completions.create(ask);
    const chunks = await collect(await client.chat.completions.create({ ...ask, stream: true }));
    const text = chunks.map(({ choices }) => choices[0]?.delta.content ?? '').join('');
    expect(text).toBe(whole.choices[0]?.message.content);
    expect(whole.usage?.prompt_tokens).toBe(encodeChat(ask.messages).length);
    const refused = client.chat.completions.create({
      ...ask,
      messages: [...ask.messages, { role: 'system', content: 'x' }],
    });
    await expect(refused).rejects.toMatchObject({
      status: 400,
      param: 'messages',
      message: expect.stringContaining('only the first message can be of the system'),
    });
  });

  it('tells a client whose biases leave no token that it is the biases', async () => {
    const handler = createOpenAIHandler({ models: [model] });
    const one = encode('1')[0]!;
    const body = JSON.stringify({
      model: 'tiny',
      messages: [{ role: 'user', content: 'a' }],
      logit_bias: { [one]: -100 },
      response_format: { type: 'json_schema', json_schema: { name: 's', schema: { const: 1 } } },
    });
    const request = new Request('http://localhost/v1/chat/completions', { method: 'POST', body });
    const response = await handler(request);
    expect([response.status, await response.json()]).toMatchObject([
      400,
      { error: { code: 'no_token_left' } },
    ]);
  });

  it('drafts from the prompt where it is told to, and says the same', async () => {
    cpSync(GROUPED, join(tiny.folder, 'gqa'), { recursive: true });
    const open = (more: object) => openTextModel(tiny.folder, { graph: 'gqa/model.onnx', ...more });
    await using plain = await open({});
    await using drafting = await open({ draft: 'prompt-lookup' });
    const promptIds = encode('one two one two one two');
    const said = async (served: LocalTextModel) => {
      const pieces = await collect(served.generate(request({ promptIds, maxTokens: 60 })));
      return { text: pieces.map(({ text }) => text).join(''), drafts: pieces.at(-1)?.drafts };
    };
    const [without, drafted] = [await said(plain), await said(drafting)];
    expect(drafted.text).toBe(without.text);
    expect(without.drafts).toBeUndefined();
    expect(drafted.drafts?.drafted).toBeGreaterThan(0);
    expect(drafted.drafts?.accepted).toBeLessThanOrEqual(drafted.drafts!.drafted);
    // Two at a time share their steps instead.
    const [first, second] = await Promise.all([said(drafting), said(drafting)]);
    expect(first.drafts).toBeDefined();
    expect(second.drafts).toBeUndefined();
    // The server says what came of it.
    const handler = createOpenAIHandler({ models: [drafting] });
    const body = JSON.stringify({ model: drafting.id, prompt: promptIds, max_tokens: 60, temperature: 0 });
    const asked = new Request('http://localhost/v1/completions', { method: 'POST', body });
    expect(await (await handler(asked)).json()).toMatchObject({
      timings: { draft_n: expect.any(Number), draft_n_accepted: expect.any(Number) },
    });
  });

  it('drafts with another model where it is told to, and says the same', async () => {
    cpSync(GROUPED, join(tiny.folder, 'gqa'), { recursive: true });
    using own = tinyModel();
    cpSync(GROUPED, join(own.folder, 'gqa'), { recursive: true });
    const graph = 'gqa/model.onnx';
    const draft = { folder: own.folder, graph, session: { threads: 1 }, asynchronous: true };
    const promptIds = encode('one two three');
    const sampled = { temperature: 1, seed: 5 };
    const said = async (served: LocalTextModel, more: object) => {
      const pieces = await collect(served.generate(request({ promptIds, maxTokens: 60, ...more })));
      return { text: pieces.map(({ text }) => text).join(''), drafts: pieces.at(-1)?.drafts };
    };
    await using plain = await openTextModel(tiny.folder, { graph });
    await using drafting = await openTextModel(tiny.folder, { graph, draft });
    for (const more of [{}, sampled]) {
      const [expected, got] = [await said(plain, more), await said(drafting, more)];
      expect(got.text).toBe(expected.text);
      expect([expected.drafts, got.drafts]).toEqual([undefined, expect.anything()]);
    }
    await using inTurn = await openTextModel(tiny.folder, {
      graph,
      draft: { ...draft, asynchronous: false },
    });
    const drafted = await said(inTurn, {});
    expect(drafted.text).toBe((await said(plain, {})).text);
    expect(drafted.drafts?.accepted).toBeGreaterThan(0);
    expect(drafting.bytes).toBeGreaterThan(1.5 * plain.bytes);
    const [alone, both] = await Promise.all([
      textModelMemory(tiny.folder, { graph }),
      textModelMemory(tiny.folder, { graph, draft }),
    ]);
    expect(both).toBeGreaterThan(alone);
    // Past what the drafter was made for there are no drafts.
    using short = tinyModel({ max_position_embeddings: 64 });
    cpSync(GROUPED, join(short.folder, 'gqa'), { recursive: true });
    await using limited = await openTextModel(tiny.folder, { graph, draft: { folder: short.folder, graph } });
    expect((await said(limited, {})).drafts).toBeUndefined();
    expect((await said(limited, { maxTokens: 64 - promptIds.length })).drafts).toBeDefined();
    // Another graph of the same folder can draft; a model that would be its own drafter answers without.
    await using beside = await openTextModel(tiny.folder, {
      graph,
      draft: { folder: tiny.folder, graph: 'onnx/model.onnx' },
    });
    expect((await said(beside, {})).drafts).toBeDefined();
    await using itself = await openTextModel(own.folder, { graph, draft });
    expect((await said(itself, {})).drafts).toBeUndefined();
  });

  it('refuses a drafting model of another tokenizer, and one that is not there', async () => {
    using own = tinyModel();
    const file = join(own.folder, 'tokenizer.json');
    const tokenizer = JSON.parse(readFileSync(file, 'utf8')) as { model: { vocab: Record<string, number> } };
    const [first, second] = Object.keys(tokenizer.model.vocab) as [string, string];
    const { vocab } = tokenizer.model;
    [vocab[first], vocab[second]] = [vocab[second]!, vocab[first]!];
    writeFileSync(file, JSON.stringify(tokenizer));
    const graph = 'onnx/model.onnx';
    const draft = { folder: own.folder, graph };
    await expect(openTextModel(tiny.folder, { graph, draft })).rejects.toMatchObject({
      code: 'DRAFT_MODEL_MISMATCH',
    });
    const missing = { folder: join(own.folder, 'none') };
    await expect(openTextModel(tiny.folder, { graph, draft: missing })).rejects.toMatchObject({
      code: 'MODEL_NOT_FOUND',
    });
  });

  it('says so when it can go on no more', async () => {
    const own = await openTextModel(tiny.folder, { graph: 'onnx/model.onnx' });
    await own.dispose();
    await own.dispose();
    await expect(collect(own.generate(request()))).rejects.toBeInstanceOf(ModelLostError);
  });

  it('takes the only graph of a folder', async () => {
    using own = tinyModel();
    rmSync(join(own.folder, 'onnx', 'model.onnx'));
    await expect(openTextModel(own.folder)).rejects.toMatchObject({ code: 'MODEL_NOT_FOUND' });
    rmSync(join(own.folder, 'onnx', 'model_fp16.onnx'));
    await (await openTextModel(own.folder)).dispose();
  });

  it('refuses folders that are no model, with codes', async () => {
    const codeOf = (folder: string, options = {}) =>
      openTextModel(folder, options).then(
        () => undefined,
        (cause: { code?: string }) => cause.code,
      );
    expect(await codeOf('/no/such/folder')).toBe('MODEL_NOT_FOUND');
    using own = tinyModel({ max_position_embeddings: null });
    expect(await codeOf(own.folder)).toBe('CONTEXT_LENGTH_UNKNOWN');
    expect(await codeOf(own.folder, { graph: 'no.onnx', contextLength: 5 })).toBe('MODEL_NOT_FOUND');
    writeFileSync(join(own.folder, 'tokenizer_config.json'), '{');
    expect(await codeOf(own.folder)).toBe('MODEL_CONFIG_INVALID');
  });
});

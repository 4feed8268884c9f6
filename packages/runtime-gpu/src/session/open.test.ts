import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { InferenceError } from '../errors.js';
import { integerTensor, zeroTensor } from '../tensor/make.js';
import type { TensorValue } from '../tensor/types.js';
import { testdata } from '../test/fixtures.js';
import { openSession } from './open.js';
import type { Session } from './types.js';

const LLAMA = testdata('optimum/llama/onnx/model.onnx');

function llamaFeeds(
  session: Session,
  ids: number[],
  positions = ids.map((_, i) => i),
): Record<string, TensorValue> {
  const row = (values: number[]) => integerTensor('int64', values, [1, values.length]);
  const feeds: Record<string, TensorValue> = {
    input_ids: row(ids),
    attention_mask: row(ids.map(() => 1)),
    position_ids: row(positions),
  };
  for (const input of session.inputs) feeds[input.name] ??= zeroTensor('float32', [1, 2, 0, 16]);
  return feeds;
}

async function codeOf(promise: Promise<unknown>): Promise<string> {
  const error = await promise.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(InferenceError);
  return (error as InferenceError).code;
}

describe('openSession', () => {
  let folder: string;
  let session: Session;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'cqil-session-'));
    session = await openSession(LLAMA, { threads: 1 });
  });
  afterAll(async () => {
    await session.dispose();
    await rm(folder, { recursive: true });
  });

  it('says what goes in and what comes out', () => {
    expect(session.inputs[3]).toEqual({
      name: 'past_key_values.0.key',
      elementType: 'float32',
      shape: ['batch_size', 2, 'past_sequence_length', 16],
    });
    expect(session.outputs[0]).toEqual({
      name: 'logits',
      elementType: 'float32',
      shape: ['batch_size', 'sequence_length', 512],
    });
  });

  it('hands out the outputs that were asked for, and all of them otherwise', async () => {
    const feeds = llamaFeeds(session, [5, 6, 7]);
    const some = await session.run(feeds, ['present.1.key', 'logits']);
    expect(Object.keys(some)).toEqual(['present.1.key', 'logits']);
    expect(some.logits!.dims).toEqual([1, 3, 512]);
    expect(Object.keys(await session.run(feeds))).toEqual(session.outputs.map((output) => output.name));
  });

  it('loads a model from bytes, with the folder of its external data', async () => {
    const { readFile } = await import('node:fs/promises');
    const bytes = await readFile(testdata('genai-fp32/llama/model.onnx'));
    expect(await codeOf(openSession(bytes))).toBe('MODEL_LOAD_FAILED');
    const loaded = await openSession(bytes, { externalDataFolder: testdata('genai-fp32/llama') });
    expect(loaded.inputs.map((input) => input.name)).toContain('input_ids');
    await loaded.dispose();
  });

  it('refuses what is no model', async () => {
    const bad = join(folder, 'bad.onnx');
    await writeFile(bad, 'not a model');
    expect(await codeOf(openSession(bad))).toBe('MODEL_LOAD_FAILED');
    expect(await codeOf(openSession(join(folder, 'none.onnx')))).toBe('MODEL_NOT_FOUND');
    expect(await codeOf(openSession(folder))).toBe('MODEL_NOT_FOUND');
  });

  it('refuses a device that is not there', async () => {
    expect(await codeOf(openSession(LLAMA, { providers: ['abacus'] }))).toBe('PROVIDER_UNAVAILABLE');
  });

  it('refuses wrong feeds before anything runs', async () => {
    const feeds = llamaFeeds(session, [5, 6, 7]);
    const { position_ids: _left, ...without } = feeds;
    expect(await codeOf(session.run(without))).toBe('INPUT_MISSING');
    expect(await codeOf(session.run({ ...feeds, token_types: feeds.input_ids! }))).toBe('INPUT_UNKNOWN');
    expect(await codeOf(session.run({ ...feeds, input_ids: integerTensor('int32', [1], [1, 1]) }))).toBe(
      'INPUT_TYPE',
    );
    expect(
      await codeOf(session.run({ ...feeds, 'past_key_values.0.key': zeroTensor('float32', [1, 3, 0, 16]) })),
    ).toBe('INPUT_SHAPE');
    const short: TensorValue = { type: 'int64', dims: [1, 3], data: new BigInt64Array(2) };
    expect(await codeOf(session.run({ ...feeds, input_ids: short }))).toBe('INPUT_SHAPE');
    expect(await codeOf(session.run(feeds, ['hidden']))).toBe('OUTPUT_UNKNOWN');
  });

  it('names the node at which a run failed', async () => {
    const error = (await session
      .run(llamaFeeds(session, [5, 6, 99999]))
      .catch((thrown: unknown) => thrown)) as InferenceError;
    expect(error.code).toBe('RUN_FAILED');
    expect(error.node).toEqual({ opType: 'Gather', name: '/model/embed_tokens/Gather' });
    expect(error.message).toContain('idx=99999');
    expect(error.message).not.toContain('onnxruntime_src');
  });

  it('is disposed once, after what runs has ended, and not usable afterwards', async () => {
    const own = await openSession(LLAMA, { threads: 1 });
    const running = own.run(llamaFeeds(own, [1, 2, 3]), ['logits']);
    const [result] = await Promise.all([running, own.dispose(), own.dispose()]);
    expect(result.logits!.dims).toEqual([1, 3, 512]);
    await own.dispose();
    expect(await codeOf(own.run({}))).toBe('SESSION_DISPOSED');
  });
});

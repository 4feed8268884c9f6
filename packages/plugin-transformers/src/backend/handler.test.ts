import { createRequire } from 'node:module';
import { join } from 'node:path';
import type * as Ort from 'onnxruntime-common';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { identityModel } from '../../../runtime-gpu/src/test/identity-model.js';
import { TESTDATA } from '../test/temporary.js';
import { type RegisteredBackend, registerBackend } from './register.js';

const require = createRequire(createRequire(import.meta.url).resolve('@huggingface/transformers'));
const { InferenceSession, Tensor } = require('onnxruntime-node') as typeof Ort;
type Session = Ort.InferenceSession;

const quiet = { logSeverityLevel: 4 } as const;
const opened: Session[] = [];

async function open(model: string | Uint8Array, options: Ort.InferenceSession.SessionOptions = quiet) {
  const session = await InferenceSession.create(model as string, options);
  opened.push(session);
  return session;
}

/** The same model in onnxruntime-node and in this package's backend. */
async function both(model: string | Uint8Array, options?: Ort.InferenceSession.SessionOptions) {
  const stock = await open(model, options);
  const backend = registerBackend();
  try {
    const ours = await open(model, options);
    return { stock, ours, native: backend.sessions === 1 };
  } finally {
    backend.unregister();
  }
}

afterEach(async () => {
  for (const session of opened.splice(0)) await session.release().catch(() => {});
});

/** What free dimensions are set to; 2 where nothing is said. */
const SIZES: Readonly<Record<string, number>> = {
  height: 20,
  width: 20,
  num_channels: 3,
  'past_sequence_length + sequence_length': 4,
};

/** Feeds with some numbers in them. */
function feedsFor(session: Session): Record<string, Ort.Tensor> {
  return Object.fromEntries(
    session.inputMetadata.map((input) => {
      if (!input.isTensor) throw new Error(`${input.name} is no tensor`);
      const dims = input.shape.map((dim) => (typeof dim === 'number' ? dim : (SIZES[dim] ?? 2)));
      const size = dims.reduce((a, b) => a * b, 1);
      const numbers = Array.from({ length: size }, (_, i) => (i * 7) % 2);
      if (input.type === 'bool') return [input.name, new Tensor('bool', numbers.map(Boolean), dims)];
      return [input.name, new Tensor(input.type as 'float32', numbers, dims)];
    }),
  );
}

function plain(results: Record<string, Ort.Tensor>) {
  return Object.fromEntries(
    Object.entries(results).map(([name, { type, dims, location, size, data }]) => [
      name,
      { type, dims, location, size, data },
    ]),
  );
}

const refused = (name: string) => join(TESTDATA, 'families/refused', name, 'model.onnx');

describe.each(['bert_features', 'vit', 'whisper_decoder', 'merged'])(
  'a model that is no decoder: %s',
  (name) => {
    it('has the same inputs, outputs and results', async () => {
      const { stock, ours, native } = await both(refused(name));
      expect(native).toBe(true);
      expect(ours.inputMetadata).toEqual(stock.inputMetadata);
      expect(ours.outputMetadata).toEqual(stock.outputMetadata);
      expect([ours.inputNames, ours.outputNames]).toEqual([stock.inputNames, stock.outputNames]);
      const feeds = feedsFor(stock);
      const [expected, got] = [await stock.run(feeds), await ours.run(feeds)];
      expect(plain(got)).toEqual(plain(expected));
      for (const tensor of Object.values(got)) expect(tensor).toBeInstanceOf(Tensor);
    });
  },
);

describe('a session', () => {
  const model = refused('bert_features');

  it('loads from bytes, and gives the outputs that are asked for', async () => {
    const { readFile } = await import('node:fs/promises');
    const { stock, ours, native } = await both(await readFile(refused('whisper_decoder')));
    expect(native).toBe(true);
    const feeds = feedsFor(stock);
    const names = stock.outputNames.slice(0, 1);
    const got = await ours.run(feeds, names);
    expect(Object.keys(got)).toEqual(names);
    expect(plain(got)).toEqual(plain(await stock.run(feeds, names)));
  });

  it('takes the options of a session', async () => {
    const { native } = await both(model, {
      ...quiet,
      intraOpNumThreads: 1,
      graphOptimizationLevel: 'basic',
      executionProviders: ['cpu'],
    });
    expect(native).toBe(true);
  });

  it('writes into memory that is given for an output', async () => {
    const { stock, ours } = await both(model);
    const feeds = feedsFor(stock);
    const [name] = stock.outputNames as [string];
    const expected = (await stock.run(feeds))[name]!;
    const given = new Tensor('float32', new Float32Array(expected.size), expected.dims);
    const got = await ours.run(feeds, { [name]: given });
    expect(given.data).toEqual(expected.data);
    expect(got[name]!.data).toEqual(expected.data);
    const small = new Tensor('float32', new Float32Array(1), [1]);
    await expect(ours.run(feeds, { [name]: small })).rejects.toThrow('does not fit');
  });

  it('says what is wrong in the words of ONNX Runtime', async () => {
    const { stock, ours } = await both(join(TESTDATA, 'optimum/llama/onnx/model.onnx'));
    const ids = (values: number[], dims: number[]) =>
      new Tensor('int64', BigInt64Array.from(values, BigInt), dims);
    const empty = (dims: number[]) => new Tensor('float32', new Float32Array(0), dims);
    const feeds = Object.fromEntries(
      stock.inputNames.map((name) => [
        name,
        name.startsWith('past') ? empty([1, 2, 0, 16]) : ids([1, 1, 1], [1, 3]),
      ]),
    );
    const wrong: Record<string, Ort.Tensor>[] = [
      { ...feeds, input_ids: ids([1, 1, 99_999], [1, 3]) },
      { ...feeds, input_ids: ids([1, 1, 1], [3]) },
      { ...feeds, input_ids: new Tensor('float32', [1, 1, 1], [1, 3]) },
      { ...feeds, input_ids: new Tensor('string', ['a', 'b', 'c'], [1, 3]) },
      { ...feeds, 'past_key_values.0.key': empty([1, 3, 0, 16]) },
      { ...feeds, 'past_key_values.1.value': empty([1, 0, 16]) },
      { ...feeds, position_ids: ids([1, 1, 1, 1, 1], [1, 5]) },
    ];
    const messageOf = (work: Promise<unknown>) =>
      work.then(
        () => 'no error',
        (error: unknown) => (error as Error).message,
      );
    for (const one of wrong) {
      const expected = await messageOf(stock.run(one));
      expect(expected).not.toBe('no error');
      expect(await messageOf(ours.run(one))).toBe(expected);
    }
    await expect(ours.run({})).rejects.toThrow("input 'input_ids' is missing in 'feeds'.");
    await Promise.all([stock.release(), ours.release()]);
    expect(await messageOf(ours.run(feeds))).toBe(await messageOf(stock.run(feeds)));
  });

  it('that cannot be loaded fails as it always did', async () => {
    for (const file of ['/no/such.onnx', join(TESTDATA, 'optimum/llama/config.json')]) {
      const before = await InferenceSession.create(file, quiet).catch((error: Error) => error.message);
      const backend = registerBackend();
      await expect(InferenceSession.create(file, quiet)).rejects.toThrow(before as string);
      expect(backend.sessions).toBe(0);
      backend.unregister();
    }
  });

  it('may be released while it runs, and twice', async () => {
    const { ours } = await both(model);
    const run = ours.run(feedsFor(ours));
    await ours.release();
    await ours.release();
    expect(Object.keys(await run)).toEqual(ours.outputNames);
  });
});

describe('what onnxruntime-node does itself', () => {
  it('strings', async () => {
    const model = identityModel([{ name: 'words', code: 8, shape: ['n'] }]);
    const { ours, native } = await both(model);
    expect(native).toBe(false);
    const { 'out.words': out } = await ours.run({ words: new Tensor('string', ['a', 'ü'], [2]) });
    expect(out!.data).toEqual(['a', 'ü']);
  });

  it('options that a native session does not have', async () => {
    const { ours, native } = await both(refused('bert_features'), { ...quiet, enableMemPattern: false });
    expect(native).toBe(false);
    expect(Object.keys(await ours.run(feedsFor(ours)))).toEqual(ours.outputNames);
  });
});

describe('element types', () => {
  const types = [
    [1, 'float32'],
    [2, 'uint8'],
    [3, 'int8'],
    [4, 'uint16'],
    [5, 'int16'],
    [6, 'int32'],
    [7, 'int64'],
    [9, 'bool'],
    [11, 'float64'],
    [12, 'uint32'],
    [13, 'uint64'],
  ] as const;

  it('come as they go', async () => {
    const values = types.map(([code, name]) => ({ name, code, shape: ['n', 2] }));
    const { stock, ours, native } = await both(identityModel(values));
    expect(native).toBe(true);
    expect(ours.inputMetadata).toEqual(stock.inputMetadata);
    const feeds = feedsFor(stock);
    expect(plain(await ours.run(feeds))).toEqual(plain(await stock.run(feeds)));
  });

  it('16-bit floats come as the bits, whatever array they are in', async () => {
    const { ours } = await both(identityModel([{ name: 'half', code: 10, shape: ['n'] }]));
    const bits = Uint16Array.of(0x3c00, 0xc000);
    const { 'out.half': out } = await ours.run({ half: new Tensor('float16', bits, [2]) });
    const data = out!.data as unknown as Uint16Array;
    expect(new Uint16Array(data.buffer, data.byteOffset, 2)).toEqual(bits);
  });
});

describe('registerBackend', () => {
  let backend: RegisteredBackend;
  beforeAll(() => {
    backend = registerBackend();
  });
  afterAll(() => backend.unregister());

  it('called again takes the place of itself', async () => {
    const again = registerBackend({ prefixCache: false });
    await open(refused('bert_features'));
    expect([backend.sessions, again.sessions]).toEqual([0, 1]);
    backend.unregister();
    await open(refused('bert_features'));
    expect(again.sessions).toBe(2);
    again.unregister();
    await open(refused('bert_features'));
    expect([backend.sessions, again.sessions]).toEqual([0, 2]);
  });

  it('refuses what cannot work, with a code', () => {
    const code = (work: () => unknown) => {
      try {
        work();
        return 'no error';
      } catch (error) {
        return (error as { code?: string }).code;
      }
    };
    expect(code(() => registerBackend({ prefixCache: -1 }))).toBe('BACKEND_OPTION');
    expect(code(() => registerBackend({ from: '/' }))).toBe('TRANSFORMERS_NOT_FOUND');
    const host = Symbol.for('onnxruntime');
    Object.assign(globalThis, { [host]: {} });
    expect(code(() => registerBackend())).toBe('BACKEND_BYPASSED');
    Reflect.deleteProperty(globalThis, host);
  });
});

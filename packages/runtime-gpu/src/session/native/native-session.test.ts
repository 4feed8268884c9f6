import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { zeroTensor } from '../../tensor/make.js';
import { elementCount, type TensorValue } from '../../tensor/types.js';
import { testdata } from '../../test/fixtures.js';
import { identityModel } from '../../test/identity-model.js';
import { openSession } from '../open.js';
import type { Session } from '../types.js';
import { freeTensor } from './adopted-tensor.js';
import { arrayOver, elementCode, type PlainType } from './element-types.js';
import { NativeSession } from './native-session.js';

const TYPES = [
  'float32',
  'float64',
  'float16',
  'int8',
  'uint8',
  'int16',
  'uint16',
  'int32',
  'uint32',
  'int64',
  'uint64',
  'bool',
] as const satisfies readonly PlainType[];

/** Any bits at all, but 0 or 1 where only those mean something. */
function tensorOf(type: (typeof TYPES)[number]): fc.Arbitrary<TensorValue> {
  const dims = fc.array(fc.nat({ max: 5 }), { minLength: 2, maxLength: 2 });
  return dims.chain((shape) =>
    fc.infiniteStream(fc.nat({ max: 255 })).map((bytes) => {
      const value = zeroTensor(type, shape);
      const raw = new Uint8Array((value.data as Uint8Array).buffer);
      for (let i = 0; i < raw.length; i++) {
        const byte = bytes.next().value as number;
        raw[i] = type === 'bool' ? byte & 1 : byte;
      }
      return value;
    }),
  );
}

const bitsOf = ({ data, dims, type }: TensorValue) => ({
  type,
  dims: [...dims],
  bits: Buffer.from(
    (data as Uint8Array).buffer,
    (data as Uint8Array).byteOffset,
    (data as Uint8Array).byteLength,
  ).toString('hex'),
});

describe('NativeSession', () => {
  let identity: NativeSession;
  beforeAll(async () => {
    const model = identityModel(
      TYPES.map((type) => ({ name: type, code: elementCode(type), shape: ['a', 'b'] })),
    );
    identity = (await openSession(model, { binding: 'native' })) as NativeSession;
  });
  afterAll(() => identity.dispose());

  it('makes memory for tensors at the beginning of a cache line', async () => {
    const { address } = (await import('koffi')).default;
    for (const type of TYPES) {
      for (const dims of [
        [3, 5],
        [64, 1000],
        [1, 300_001],
        [0, 4],
      ]) {
        const { data } = identity.zeros(type, dims) as Exclude<TensorValue, { type: 'string' }>;
        expect(data.length).toBe(elementCount(dims));
        expect(data.some((value) => Number(value) !== 0)).toBe(false);
        if (data.length > 0) expect(Number(address(data) % 64n)).toBe(0);
      }
    }
  });

  it('carries every element type, any bits, any shape, empty ones too', async () => {
    expect(identity).toBeInstanceOf(NativeSession);
    await fc.assert(
      fc.asyncProperty(
        fc.record(Object.fromEntries(TYPES.map((type) => [type, tensorOf(type)]))),
        async (feeds) => {
          const results = await identity.run(feeds as Record<string, TensorValue>);
          for (const type of TYPES) {
            expect(bitsOf(results[`out.${type}`]!)).toEqual(bitsOf(feeds[type] as TensorValue));
          }
        },
      ),
      { numRuns: 60 },
    );
  });

  it('writes into memory that is given, part of an array too', async () => {
    const feeds = Object.fromEntries(TYPES.map((type) => [type, zeroTensor(type, [2, 3])]));
    const block = new Float32Array(20).fill(7);
    const target = { type: 'float32', dims: [2, 3], data: block.subarray(5, 11) } as const;
    const resident = identity.resident(target);
    const input = { type: 'float32', dims: [2, 3], data: Float32Array.of(1, 2, 3, 4, 5, 6) } as const;
    const results = await identity.execute({ ...feeds, float32: input }, { 'out.float32': resident });
    expect(results).toEqual({});
    expect([...block]).toEqual([7, 7, 7, 7, 7, 1, 2, 3, 4, 5, 6, ...new Array<number>(9).fill(7)]);
    resident.dispose();
    resident.dispose();
    await expect(
      identity.execute({ ...feeds, float32: resident }, { 'out.float32': 'tensor' }),
    ).rejects.toMatchObject({ code: 'TENSOR_DISPOSED' });
  });

  it('refuses what does not fill its shape before anything runs', async () => {
    const feeds = Object.fromEntries(TYPES.map((type) => [type, zeroTensor(type, [2, 3])]));
    const short = { type: 'float32', dims: [2, 3], data: new Float32Array(5) } as const;
    await expect(identity.run({ ...feeds, float32: short })).rejects.toMatchObject({ code: 'INPUT_SHAPE' });
  });

  it('frees a result once, and leaves tensors of JavaScript alone', async () => {
    const feeds = Object.fromEntries(TYPES.map((type) => [type, zeroTensor(type, [2, 3])]));
    const { 'out.int32': result } = await identity.run(feeds, ['out.int32']);
    freeTensor(result!);
    freeTensor(result!);
    freeTensor(feeds.int32!);
    expect(feeds.int32).toEqual(zeroTensor('int32', [2, 3]));
  });

  it('leaves scalars and strings to whom they belong', async () => {
    const scalar = await openSession(identityModel([{ name: 'x', code: 1, shape: [] }]));
    const x = { type: 'float32', dims: [], data: Float32Array.of(2.5) } as const;
    expect((await scalar.run({ x }))['out.x']).toEqual(x);
    expect(scalar.binding).toBe('native');
    await scalar.dispose();
    const strings = await openSession(identityModel([{ name: 's', code: 8, shape: ['n'] }]));
    expect(strings.binding).toBe('node');
    const s = { type: 'string', dims: [2], data: ['a', 'bc'] } as const;
    expect((await strings.run({ s: { ...s, data: [...s.data] } }))['out.s']).toMatchObject(s);
    await strings.dispose();
  });

  it('reads the same border as onnxruntime-node', async () => {
    for (const file of [
      'optimum/gpt2/onnx/model.onnx',
      'genai-int4/llama/model.onnx',
      'optimum/llama/onnx/model_fp16.onnx',
    ]) {
      const both = await Promise.all(
        (['native', 'node'] as const).map((binding) => openSession(testdata(file), { binding, threads: 1 })),
      );
      const [native, node] = both as [Session, Session];
      expect(native.inputs).toEqual(node.inputs);
      expect(native.outputs).toEqual(node.outputs);
      await Promise.all(both.map((session) => session.dispose()));
    }
  });

  it('ends a run that is aborted, and can be used again', async () => {
    const session = await openSession(testdata('optimum/llama/onnx/model.onnx'), { threads: 1 });
    const ids = Array.from({ length: 256 }, (_, i) => BigInt(i % 500));
    const row = (data: BigInt64Array) => ({ type: 'int64', dims: [1, data.length], data }) as const;
    const feeds: Record<string, TensorValue> = {
      input_ids: row(BigInt64Array.from(ids)),
      attention_mask: row(new BigInt64Array(ids.length).fill(1n)),
      position_ids: row(BigInt64Array.from(ids, (_, i) => BigInt(i))),
    };
    for (const input of session.inputs) feeds[input.name] ??= zeroTensor('float32', [1, 2, 0, 16]);
    const whole = await session.run(feeds, ['logits']);
    let ended = 0;
    for (const delay of [0, 1, 2, 3]) {
      const controller = new AbortController();
      const run = session.run(feeds, ['logits'], { signal: controller.signal });
      setTimeout(() => controller.abort(new Error('enough')), delay);
      const reason = await run.then(
        () => undefined,
        (error: Error) => error.message,
      );
      expect(reason ?? 'enough').toBe('enough');
      if (reason !== undefined) ended += 1;
    }
    expect(ended).toBeGreaterThan(0);
    await expect(session.run(feeds, [], { signal: AbortSignal.abort(new Error('no')) })).rejects.toThrow(
      'no',
    );
    expect((await session.run(feeds, ['logits'])).logits).toEqual(whole.logits);
    await session.dispose();
  });

  it('waits for runs before it is disposed', async () => {
    const session = (await openSession(
      identityModel([{ name: 'x', code: 1, shape: ['n'] }]),
    )) as NativeSession;
    const x = { type: 'float32', dims: [100_000], data: new Float32Array(100_000).fill(3) } as const;
    const runs = Array.from({ length: 8 }, () => session.run({ x }));
    await session.dispose();
    for (const result of await Promise.all(runs)) expect(result['out.x']!.data.at(-1)).toBe(3);
    await expect(session.run({ x })).rejects.toMatchObject({ code: 'SESSION_DISPOSED' });
  });
});

describe('element types', () => {
  it('lie in arrays as long as their bytes say', () => {
    fc.assert(
      fc.property(fc.constantFrom(...TYPES), fc.nat({ max: 20 }), (type, count) => {
        const value = zeroTensor(type, [count]);
        const bytes = (value.data as Uint8Array).buffer as ArrayBuffer;
        expect(arrayOver(type, bytes).length).toBe(elementCount(value.dims));
      }),
    );
  });
});

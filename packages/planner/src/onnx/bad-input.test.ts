import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { create, toBinary } from '@bufbuild/protobuf';
import { CqilError } from '@cqil/core';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  GraphProtoSchema,
  ModelProtoSchema,
  NodeProtoSchema,
  StringStringEntryProtoSchema,
  type TensorProto,
  TensorProtoSchema,
} from './gen/onnx_pb.js';
import { DataType, readModel, writeModel } from './index.js';

const testdata = path.resolve(import.meta.dirname, '../../../../testdata');

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(path.join(os.tmpdir(), 'cqil-onnx-'));
});
afterEach(() => rm(dir, { recursive: true, force: true }));

async function readBytes(bytes: Uint8Array): Promise<unknown> {
  const file = path.join(dir, 'model.onnx');
  await writeFile(file, bytes);
  return readModel(file).then(
    () => undefined,
    (error: unknown) => error,
  );
}

describe('a damaged file', () => {
  it('cut anywhere gives a coded error or, cut between fields, a smaller model; never anything else', async () => {
    const whole = await readFile(path.join(testdata, 'genai-fp32/llama/model.onnx'));
    await writeFile(
      path.join(dir, 'model.onnx.data'),
      await readFile(path.join(testdata, 'genai-fp32/llama/model.onnx.data')),
    );
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 0, max: whole.length - 1 }), async (length) => {
        const error = await readBytes(whole.subarray(0, length));
        if (error !== undefined) expect(error).toBeInstanceOf(CqilError);
      }),
      { numRuns: 150 },
    );
  });

  it('with flipped bits gives a coded error or a model that can be written', async () => {
    const whole = await readFile(path.join(testdata, 'genai-int4/llama/model.onnx'));
    await writeFile(
      path.join(dir, 'model.onnx.data'),
      await readFile(path.join(testdata, 'genai-int4/llama/model.onnx.data')),
    );
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.integer({ min: 0, max: whole.length - 1 }), fc.integer({ min: 0, max: 7 })), {
          minLength: 1,
          maxLength: 8,
        }),
        async (flips) => {
          const bytes = Uint8Array.from(whole);
          for (const [at, bit] of flips) bytes[at] = (bytes[at] as number) ^ (1 << bit);
          const file = path.join(dir, 'model.onnx');
          await writeFile(file, bytes);
          try {
            await writeModel(await readModel(file), path.join(dir, 'again.onnx'));
          } catch (error) {
            expect(error).toBeInstanceOf(CqilError);
          }
        },
      ),
      { numRuns: 150 },
    );
  });

  it('of random bytes gives a coded error', async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ minLength: 0, maxLength: 2000 }), async (bytes) => {
        expect(await readBytes(bytes)).toBeInstanceOf(CqilError);
      }),
      { numRuns: 150 },
    );
  });

  it.each<[string, number[]]>([
    ['a field of 2^63 bytes', [0x3a, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01, 0x00]],
    ['a number that never ends', [0x08, ...Array<number>(12).fill(0xff)]],
    ['a group, which protobuf gave up', [0x0b, 0x0c]],
    ['field number 0', [0x00, 0x01]],
    ['a number where the graph should be', [0x38, 0x00]],
    ['a number where a node should be', [0x3a, 0x02, 0x08, 0x00]],
  ])('with %s is refused', async (_, bytes) => {
    expect(await readBytes(Uint8Array.from(bytes))).toMatchObject({
      code: expect.stringMatching(/^ONNX_(TRUNCATED|NOT_PROTOBUF)$/),
    });
  });

  it('of a folder or of nothing is refused', async () => {
    await expect(readModel(dir)).rejects.toMatchObject({ code: 'ONNX_FILE_MISSING' });
    await expect(readModel(path.join(dir, 'none.onnx'))).rejects.toMatchObject({ code: 'ONNX_FILE_MISSING' });
    expect(await readBytes(new Uint8Array(0))).toMatchObject({ code: 'ONNX_TRUNCATED' });
    expect(
      await readBytes(toBinary(ModelProtoSchema, create(ModelProtoSchema, { irVersion: 8n }))),
    ).toMatchObject({
      code: 'ONNX_NO_GRAPH',
    });
  });
});

function modelWith(
  tensors: TensorProto[],
  nodes = [create(NodeProtoSchema, { opType: 'Identity' })],
): Uint8Array {
  const graph = create(GraphProtoSchema, { name: 'g', initializer: tensors, node: nodes });
  return toBinary(ModelProtoSchema, create(ModelProtoSchema, { irVersion: 8n, graph }));
}

function tensor(dims: bigint[], rawData: Uint8Array, name = 'w'): TensorProto {
  return create(TensorProtoSchema, { name, dims, dataType: DataType.FLOAT, rawData });
}

function external(entries: Record<string, string>, dims = [4n]): TensorProto {
  return create(TensorProtoSchema, {
    name: 'w',
    dims,
    dataType: DataType.FLOAT,
    dataLocation: 1,
    externalData: Object.entries(entries).map(([key, value]) =>
      create(StringStringEntryProtoSchema, { key, value }),
    ),
  });
}

describe('a tensor', () => {
  it.each<[string, TensorProto[], string]>([
    ['of fewer bytes than its shape says', [tensor([4n], new Uint8Array(12))], 'TENSOR_DATA_LENGTH'],
    [
      'with a large payload of the wrong size',
      [tensor([4000n], new Uint8Array(12_000))],
      'TENSOR_DATA_LENGTH',
    ],
    ['of negative size', [tensor([-4n], new Uint8Array(16))], 'ONNX_TENSOR_SHAPE'],
    ['of 2^63 elements', [tensor([2n ** 62n, 2n], new Uint8Array(16))], 'ONNX_TENSOR_SHAPE'],
    [
      'that is there twice',
      [tensor([1n], new Uint8Array(4)), tensor([1n], new Uint8Array(4))],
      'ONNX_DUPLICATE_NAME',
    ],
    ['without a name', [tensor([1n], new Uint8Array(4), '')], 'ONNX_DUPLICATE_NAME'],
  ])('%s is refused', async (_, tensors, code) => {
    expect(await readBytes(modelWith(tensors))).toMatchObject({ code });
  });

  it('that two nodes make is refused', async () => {
    const node = () => create(NodeProtoSchema, { opType: 'Identity', input: ['x'], output: ['y'] });
    expect(await readBytes(modelWith([], [node(), node()]))).toMatchObject({ code: 'ONNX_DUPLICATE_NAME' });
  });
});

describe('external data', () => {
  beforeEach(async () => {
    await mkdir(path.join(dir, 'inside'));
    await writeFile(path.join(dir, 'data.bin'), new Uint8Array(16));
    await writeFile(path.join(dir, 'inside/data.bin'), new Uint8Array(16));
  });

  it.each<[string, Record<string, string>, string]>([
    ['with ".."', { location: '../data.bin' }, 'EXTERNAL_DATA_UNSAFE'],
    ['with ".." further on', { location: 'inside/../../data.bin' }, 'EXTERNAL_DATA_UNSAFE'],
    ['with ".." between backslashes', { location: '..\\data.bin' }, 'EXTERNAL_DATA_UNSAFE'],
    ['at an absolute path', { location: '/etc/passwd' }, 'EXTERNAL_DATA_UNSAFE'],
    ['at a drive', { location: 'C:\\data.bin' }, 'EXTERNAL_DATA_UNSAFE'],
    ['with a NUL byte', { location: 'data.bin\0.txt' }, 'EXTERNAL_DATA_UNSAFE'],
    ['without a location', { offset: '0' }, 'EXTERNAL_DATA_UNSAFE'],
    ['that is a folder', { location: 'inside' }, 'EXTERNAL_DATA_UNSAFE'],
    ['that is not there', { location: 'other.bin' }, 'EXTERNAL_DATA_MISSING'],
    ['at a negative offset', { location: 'data.bin', offset: '-4' }, 'EXTERNAL_DATA_RANGE'],
    ['at a huge offset', { location: 'data.bin', offset: '9223372036854775807' }, 'EXTERNAL_DATA_RANGE'],
    ['behind the end', { location: 'data.bin', offset: '4', length: '16' }, 'EXTERNAL_DATA_RANGE'],
    ['of another length than its shape', { location: 'data.bin', length: '12' }, 'EXTERNAL_DATA_RANGE'],
    ['at an offset that is no number', { location: 'data.bin', offset: '0x10' }, 'EXTERNAL_DATA_RANGE'],
  ])('%s is refused', async (_, entries, code) => {
    expect(await readBytes(modelWith([external(entries)]))).toMatchObject({ code });
  });

  it('reads what is there', async () => {
    await writeFile(
      path.join(dir, 'model.onnx'),
      modelWith([external({ location: 'data.bin', offset: '0' })]),
    );
    const model = await readModel(path.join(dir, 'model.onnx'));
    expect(await model.graph.initializers.get('w')?.bytes()).toEqual(new Uint8Array(16));
  });

  it('behind a link out of the model folder is refused, whatever the link is', async () => {
    const outside = await mkdtemp(path.join(os.tmpdir(), 'cqil-outside-'));
    try {
      await writeFile(path.join(outside, 'secret.bin'), new Uint8Array(16));
      await symlink(path.join(outside, 'secret.bin'), path.join(dir, 'link.bin'));
      await symlink(outside, path.join(dir, 'folder'));
      for (const location of ['link.bin', 'folder/secret.bin']) {
        expect(await readBytes(modelWith([external({ location })]))).toMatchObject({
          code: 'EXTERNAL_DATA_UNSAFE',
        });
      }
    } finally {
      await rm(outside, { recursive: true });
    }
  });
});

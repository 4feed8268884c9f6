import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CqilError, ModelFormatError } from '@cqil/core';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { importGguf } from './import.js';
import { readGguf } from './model-file.js';
import { tinyPairs, tinyTensors } from './testing/tiny-llama.js';
import { type GgufSpec, type TensorSpec, writeGguf } from './testing/write-gguf.js';

let dir: string;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'cqil-gguf-reader-'));
});
afterAll(() => rm(dir, { recursive: true, force: true }));

let counter = 0;
async function saved(bytes: Uint8Array, name = `${counter++}.gguf`): Promise<string> {
  const file = join(dir, name);
  await writeFile(file, bytes);
  return file;
}

const floats = (name: string, count: number, more: Partial<TensorSpec> = {}): TensorSpec => ({
  name,
  dims: [count],
  type: 'F32',
  bytes: new Uint8Array(Float32Array.from({ length: count }, (_, i) => i).buffer),
  ...more,
});

const small: GgufSpec = {
  pairs: {
    'general.architecture': { string: 'llama' },
    'a.strings': { strings: ['one', 'two', ''] },
    'a.floats': { f32s: [1, 2.5] },
    'a.flag': { bool: true },
  },
  tensors: [floats('x', 8), floats('y', 3), floats('z', 5)],
};

const smallModel = writeGguf({
  pairs: tinyPairs({ layers: 1, hidden: 32, ffn: 32, heads: 2, kvHeads: 1, vocabulary: 270 }),
  tensors: tinyTensors({
    shape: { layers: 1, hidden: 32, ffn: 32, heads: 2, kvHeads: 1, vocabulary: 270 },
    type: 'Q4_1',
  }),
});

describe('readGguf', () => {
  it('reads metadata and tensors of versions 2 and 3', async () => {
    for (const version of [2, 3]) {
      const model = await readGguf(await saved(writeGguf({ ...small, version })));
      expect(model.metadata.string('general.architecture')).toBe('llama');
      expect(model.metadata.strings('a.strings')).toEqual(['one', 'two', '']);
      expect(Array.from(model.metadata.numbers('a.floats')!)).toEqual([1, 2.5]);
      expect(model.metadata.boolean('a.flag')).toBe(true);
      expect([...model.tensors.keys()]).toEqual(['x', 'y', 'z']);
      const bytes = await model.tensors.get('y')!.data.read();
      expect([...new Float32Array(bytes.slice().buffer)]).toEqual([0, 1, 2]);
    }
  });

  it('finds all parts of a split model from any of them', async () => {
    const part = (no: number, tensors: TensorSpec[]) =>
      writeGguf({
        pairs: {
          'general.architecture': { string: 'llama' },
          'split.no': { u32: no },
          'split.count': { u32: 2 },
          'split.tensors.count': { u32: 3 },
        },
        tensors,
      });
    const first = await saved(part(0, [floats('x', 4)]), 'split-00001-of-00002.gguf');
    const second = await saved(part(1, [floats('y', 4), floats('z', 1)]), 'split-00002-of-00002.gguf');
    for (const file of [first, second]) {
      const model = await readGguf(file);
      expect([...model.tensors.keys()]).toEqual(['x', 'y', 'z']);
      expect(model.files).toEqual([first, second]);
    }
    await saved(part(0, [floats('x', 4)]), 'twice-00001-of-00002.gguf');
    const wrong = await saved(part(0, [floats('y', 4)]), 'twice-00002-of-00002.gguf');
    await expect(readGguf(wrong)).rejects.toMatchObject({ code: 'GGUF_SPLIT' });
    const renamed = await saved(part(0, [floats('x', 4)]), 'renamed.gguf');
    await expect(readGguf(renamed)).rejects.toMatchObject({ code: 'GGUF_SPLIT' });
    await saved(part(1, [floats('x', 4)]), 'same-00002-of-00002.gguf');
    const same = await saved(part(0, [floats('x', 4)]), 'same-00001-of-00002.gguf');
    await expect(readGguf(same)).rejects.toMatchObject({ code: 'GGUF_DUPLICATE' });
    await saved(part(1, [floats('y', 4)]), 'less-00002-of-00002.gguf');
    const less = await saved(part(0, [floats('x', 4)]), 'less-00001-of-00002.gguf');
    await expect(readGguf(less)).rejects.toMatchObject({ code: 'GGUF_SPLIT' });
    const alone = await saved(part(0, [floats('x', 4)]), 'alone-00001-of-00002.gguf');
    await expect(readGguf(alone)).rejects.toMatchObject({ code: 'GGUF_OPEN' });
  });

  const header = (change: (view: DataView, bytes: Uint8Array) => void): Uint8Array => {
    const bytes = writeGguf(small);
    change(new DataView(bytes.buffer), bytes);
    return bytes;
  };
  const huge = 2n ** 63n;
  const bad: [string, string, Uint8Array][] = [
    ['an empty file', 'GGUF_TRUNCATED', new Uint8Array(0)],
    ['another format', 'GGUF_MAGIC', new TextEncoder().encode('PK\u0003\u0004 this is no model at all')],
    ['version 1', 'GGUF_VERSION', writeGguf({ ...small, version: 1 })],
    ['version 99', 'GGUF_VERSION', writeGguf({ ...small, version: 99 })],
    ['big-endian', 'GGUF_BIG_ENDIAN', header((view) => view.setUint32(4, 3, false))],
    ['2^63 tensors', 'GGUF_COUNT', writeGguf({ ...small, tensorCount: huge })],
    ['2^63 pairs', 'GGUF_COUNT', writeGguf({ ...small, pairCount: huge })],
    ['more tensors than there are', 'GGUF_COUNT', writeGguf({ ...small, tensorCount: 1000n })],
    ['a string of 2^63 bytes', 'GGUF_COUNT', header((view) => view.setBigUint64(24, huge, true))],
    ['a value of type 77', 'GGUF_VALUE_TYPE', header((view) => view.setUint32(24 + 8 + 20, 77, true))],
    [
      'a key twice',
      'GGUF_DUPLICATE',
      writeGguf({
        pairs: [
          ['a', { u32: 1 }],
          ['a', { u32: 2 }],
        ],
        tensors: small.tensors,
      }),
    ],
    ['a tensor twice', 'GGUF_DUPLICATE', writeGguf({ ...small, tensors: [floats('x', 8), floats('x', 8)] })],
    [
      'a tensor of 5 dimensions',
      'GGUF_TENSOR_SHAPE',
      writeGguf({ ...small, tensors: [floats('x', 8, { dims: [2, 2, 2, 1, 1] })] }),
    ],
    [
      'a tensor of no dimension',
      'GGUF_TENSOR_SHAPE',
      writeGguf({ ...small, tensors: [floats('x', 8, { dims: [] })] }),
    ],
    [
      'an empty dimension',
      'GGUF_TENSOR_SHAPE',
      writeGguf({ ...small, tensors: [floats('x', 8, { dims: [0, 8] })] }),
    ],
    [
      '2^63 rows',
      'GGUF_TENSOR_SHAPE',
      writeGguf({ ...small, tensors: [floats('x', 8, { dims: [huge, huge] })] }),
    ],
    [
      'half a block',
      'GGUF_TENSOR_SHAPE',
      writeGguf({ ...small, tensors: [floats('x', 8, { dims: [16], type: 'Q4_0' })] }),
    ],
    ['type 250', 'GGUF_TENSOR_TYPE', writeGguf({ ...small, tensors: [floats('x', 8, { type: 250 })] })],
    [
      'a tensor past the end',
      'GGUF_TENSOR_BOUNDS',
      writeGguf({ ...small, tensors: [floats('x', 8, { dims: [4096] })] }),
    ],
    [
      'an offset past the end',
      'GGUF_TENSOR_BOUNDS',
      writeGguf({ ...small, tensors: [floats('x', 8, { offset: 1 << 20 })] }),
    ],
    [
      'an offset of 2^63',
      'GGUF_TENSOR_BOUNDS',
      writeGguf({ ...small, tensors: [floats('x', 8, { offset: huge })] }),
    ],
    [
      'an unaligned offset',
      'GGUF_TENSOR_ALIGNMENT',
      writeGguf({ ...small, tensors: [floats('x', 8), floats('y', 8, { offset: 33 })] }),
    ],
    [
      'tensors over each other',
      'GGUF_TENSOR_OVERLAP',
      writeGguf({ ...small, tensors: [floats('x', 16), floats('y', 8, { offset: 32 })] }),
    ],
    ...[0, 24, 1 << 30].map((alignment): [string, string, Uint8Array] => [
      `an alignment of ${alignment}`,
      'GGUF_ALIGNMENT',
      writeGguf({ ...small, pairs: { 'general.alignment': { u32: alignment } } }),
    ]),
  ];

  it.each(bad)('refuses %s with %s', async (_, code, bytes) => {
    await expect(readGguf(await saved(bytes))).rejects.toMatchObject({ code, name: 'ModelFormatError' });
  });

  it('says so when there is no such file, or it is a folder', async () => {
    await expect(readGguf(join(dir, 'nothing.gguf'))).rejects.toMatchObject({ code: 'GGUF_OPEN' });
    await expect(readGguf(dir)).rejects.toMatchObject({ code: 'GGUF_NOT_A_FILE' });
  });

  it('keeps to an alignment of its own', async () => {
    const bytes = writeGguf({ ...small, pairs: { 'general.alignment': { u32: 128 } }, alignment: 128 });
    const model = await readGguf(await saved(bytes));
    expect((await model.tensors.get('z')!.data.read())[4]).toBe(0);
    expect(model.tensors.get('z')!.data.offset % 128).toBe(0);
  });

  it('refuses a file cut off at any byte', async () => {
    const whole = writeGguf(small);
    const end = (await readGguf(await saved(whole))).tensors.get('z')!.data;
    const needed = end.offset + end.byteLength;
    for (let length = 0; length < needed; length++) {
      const error = await readGguf(await saved(whole.subarray(0, length), 'cut.gguf')).catch(
        (e: unknown) => e,
      );
      if (!(error instanceof ModelFormatError)) expect.fail(`${length} bytes: ${String(error)}`);
    }
  });
});

describe('importGguf on damaged files', () => {
  it('gives a coded error or a model, whatever bits are flipped', { timeout: 180_000 }, async () => {
    const out = join(dir, 'flipped');
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.nat({ max: smallModel.length - 1 }), fc.nat({ max: 7 })), {
          minLength: 1,
          maxLength: 6,
        }),
        fc.boolean(),
        async (flips, early) => {
          const bytes = smallModel.slice();
          // Half of the runs aim at the first kilobytes, where every bit means something.
          for (const [at, bit] of flips) bytes[early ? at % 2000 : at]! ^= 1 << bit;
          const file = await saved(bytes, 'flipped.gguf');
          try {
            await importGguf(file, out);
          } catch (error) {
            expect(error).toBeInstanceOf(CqilError);
          } finally {
            await rm(out, { recursive: true, force: true });
          }
        },
      ),
      { numRuns: 200, seed: 11 },
    );
  });

  it('gives a coded error for random bytes behind a right beginning', async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ minLength: 0, maxLength: 400 }), async (tail) => {
        const bytes = new Uint8Array(8 + tail.length);
        bytes.set(writeGguf(small).subarray(0, 8));
        bytes.set(tail, 8);
        const error = await readGguf(await saved(bytes, 'random.gguf')).catch((e: unknown) => e);
        if (error instanceof Error) expect(error).toBeInstanceOf(ModelFormatError);
      }),
      { numRuns: 300 },
    );
  });
});

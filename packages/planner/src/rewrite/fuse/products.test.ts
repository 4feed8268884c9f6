import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { DataType, Tensor } from '../../onnx/index.js';
import { type FloatWeight, oneAfterTheOther, sideBySide } from './products.js';

const matrices = fc
  .record({
    rows: fc.integer({ min: 1, max: 5 }),
    columns: fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 1, maxLength: 3 }),
    half: fc.boolean(),
  })
  .chain(({ rows, columns, half }) =>
    fc.record({
      rows: fc.constant(rows),
      half: fc.constant(half),
      parts: fc.tuple(
        ...columns.map((width) =>
          fc.record({
            width: fc.constant(width),
            transposed: fc.boolean(),
            values: fc.array(fc.integer({ min: 0, max: 60000 }), {
              minLength: rows * width,
              maxLength: rows * width,
            }),
          }),
        ),
      ),
    }),
  );

describe('matrices side by side', () => {
  it('hold each column of each matrix, however it is stored', async () => {
    await fc.assert(
      fc.asyncProperty(matrices, async ({ rows, half, parts }) => {
        const type = half ? DataType.FLOAT16 : DataType.FLOAT;
        const array = (values: number[]) => (half ? Uint16Array.from(values) : Float32Array.from(values));
        const weights = parts.map(({ width, transposed, values }, i): FloatWeight => {
          const stored = transposed
            ? values.map((_, at) => values[(at % rows) * width + Math.floor(at / rows)] as number)
            : values;
          const dims = transposed ? [width, rows] : [rows, width];
          return {
            tensor: Tensor.create(`part${i}`, type, dims, array(stored)),
            transposed,
            inFeatures: rows,
            outFeatures: width,
          };
        });
        const packed = sideBySide('packed', weights);
        const width = parts.reduce((sum, part) => sum + part.width, 0);
        expect(packed.dims).toEqual([rows, width]);
        const { buffer } = Uint8Array.from(await packed.bytes());
        const found = half ? new Uint16Array(buffer) : new Float32Array(buffer);
        for (let row = 0; row < rows; row++) {
          const expected = parts.flatMap((part) =>
            part.values.slice(row * part.width, (row + 1) * part.width),
          );
          expect([...found.subarray(row * width, (row + 1) * width)]).toEqual(expected);
        }
      }),
    );
  });
});

describe('tensors one after the other', () => {
  it('hold the bytes of each, in one piece and in pieces', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(
          fc.uint8Array({ minLength: 2, maxLength: 8 }).filter(({ length }) => length % 2 === 0),
          { minLength: 1, maxLength: 4 },
        ),
        async (parts) => {
          const tensors = parts.map((bytes, i) =>
            Tensor.create(`t${i}`, DataType.UINT8, [bytes.length / 2, 2], bytes),
          );
          const joined = oneAfterTheOther('joined', tensors);
          const expected = parts.flatMap((bytes) => [...bytes]);
          expect(joined.dims).toEqual([expected.length / 2, 2]);
          expect([...(await joined.bytes())]).toEqual(expected);
          const chunks: number[] = [];
          for await (const chunk of joined.data?.chunks?.() ?? []) chunks.push(...chunk);
          expect(chunks).toEqual(expected);
        },
      ),
    );
  });
});

import fc from 'fast-check';
import { expect, it } from 'vitest';
import { gram } from './gram.js';

const finite = fc.float({ noNaN: true, min: -1000, max: 1000 });

it('gives all dot products, whatever the number of rows', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 10 }),
      fc.integer({ min: 1, max: 7 }),
      fc.infiniteStream(finite),
      (rows, width, stream) => {
        const x = Float32Array.from({ length: rows * width }, () => stream.next().value as number);
        const out = new Float64Array(rows * rows).fill(Number.NaN);
        gram(x, 0, width, rows, width, out);
        for (let i = 0; i < rows; i++) {
          for (let j = 0; j < rows; j++) {
            let expected = 0;
            for (let c = 0; c < width; c++) expected += x[i * width + c]! * x[j * width + c]!;
            expect(out[i * rows + j]).toBe(expected);
          }
        }
      },
    ),
  );
});

it('reads rows that lie apart', () => {
  const x = Float32Array.from([9, 1, 2, 9, 9, 3, 4, 9]);
  const out = new Float64Array(4);
  gram(x, 1, 4, 2, 2, out);
  expect([...out]).toEqual([5, 11, 11, 25]);
});

import { seededRandom } from '@cqil/runtime-gpu';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { Cholesky } from './cholesky.js';
import { type Matrix, Products } from './products.js';
import { NormalSum, ridge } from './ridge.js';

const products = new Products(1);
afterAll(() => products.dispose());

const normals = (random: () => number) => () =>
  Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
const normal = normals(seededRandom(7));
const draw = (count: number) => Float32Array.from({ length: count }, normal);

/** Gauss elimination, written apart from what is tested. */
function gauss(a: Float64Array, b: Float64Array, n: number, m: number): Float64Array {
  const rows = Array.from({ length: n }, (_, i) => [
    ...a.subarray(i * n, i * n + n),
    ...b.subarray(i * m, i * m + m),
  ]);
  for (let i = 0; i < n; i++) {
    const pivot = rows.slice(i).reduce((p, row) => (Math.abs(row[i]!) > Math.abs(p[i]!) ? row : p));
    rows.splice(rows.indexOf(pivot), 1, rows[i]!);
    rows[i] = pivot;
    for (const row of rows) {
      if (row === pivot) continue;
      const factor = row[i]! / pivot[i]!;
      for (let k = i; k < n + m; k++) row[k]! -= factor * pivot[k]!;
    }
  }
  return Float64Array.from(rows.flatMap((row, i) => row.slice(n).map((value) => value / row[i]!)));
}

describe('Cholesky', () => {
  it.each([1, 5, 191, 192, 193, 401])('solves %i unknowns', async (n) => {
    const x = draw(2 * n * n);
    const a = new Float64Array(n * n);
    for (let t = 0; t < 2 * n; t++) {
      for (let i = 0; i < n; i++) for (let j = 0; j < n; j++) a[i * n + j]! += x[t * n + i]! * x[t * n + j]!;
    }
    for (let i = 0; i < n; i++) a[i * n + i]! += n;
    const truth = Float64Array.from(draw(n * 3));
    const matrix: Matrix = { rows: n, columns: n, data: a };
    const b = await products.multiply(matrix, { rows: n, columns: 3, data: truth });
    const solved = await (await Cholesky.factor(products, matrix)).solve(b);
    for (const [i, value] of solved.data.entries()) expect(value).toBeCloseTo(truth[i]!, 8);
  });

  it('refuses a matrix that is not positive definite', async () => {
    const matrix: Matrix = { rows: 2, columns: 2, data: Float64Array.of(1, 2, 2, 1) };
    await expect(Cholesky.factor(products, matrix)).rejects.toMatchObject({ code: 'MATRIX_NOT_POSITIVE' });
    await expect(
      Cholesky.factor(products, { ...matrix, data: Float64Array.of(Number.NaN, 0, 0, 1) }),
    ).rejects.toMatchObject({ code: 'MATRIX_NOT_POSITIVE' });
  });
});

async function sums(x: Float32Array, e: Float32Array, weights: Float32Array, withOne = false) {
  const sum = new NormalSum(products, withOne);
  const half = Math.ceil(weights.length / 2);
  const [f, o] = [x.length / weights.length, e.length / weights.length];
  await sum.add(x.slice(0, half * f), e.slice(0, half * o), weights.slice(0, half));
  if (half < weights.length) await sum.add(x.slice(half * f), e.slice(half * o), weights.slice(half));
  return sum.finish();
}

describe('ridge', () => {
  it('meets the normal equations solved another way', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 2, max: 9 }),
        fc.integer({ min: 1, max: 4 }),
        fc.double({ min: 0.01, max: 2, noNaN: true }),
        async (features, outputs, lambda) => {
          const tokens = 6 * features;
          const x = draw(tokens * features);
          const e = Float32Array.from({ length: tokens * outputs }, (_, i) => {
            const token = Math.floor(i / outputs);
            return x[token * features + (i % features)]! + 0.1 * normal();
          });
          const weights = Float32Array.from({ length: tokens }, (_, t) => (t % 5 === 0 ? 0 : 1 + (t % 3)));
          const fit = await sums(x, e, weights);
          expect(fit.tokens).toBe(weights.filter((w) => w > 0).length);
          const gram = new Float64Array(features * features);
          const moment = new Float64Array(features * outputs);
          for (let t = 0; t < tokens; t++) {
            for (let i = 0; i < features; i++) {
              const xi = weights[t]! * x[t * features + i]!;
              for (let j = 0; j < features; j++) gram[i * features + j]! += xi * x[t * features + j]!;
              for (let j = 0; j < outputs; j++) moment[i * outputs + j]! += xi * e[t * outputs + j]!;
            }
          }
          let mean = 0;
          for (let i = 0; i < features; i++) mean += gram[i * features + i]! / features;
          for (let i = 0; i < features; i++) gram[i * features + i]! += lambda * mean;
          const { solution } = await ridge(products, fit, fit, [lambda]);
          const expected = gauss(gram, moment, features, outputs);
          for (const [i, value] of solution!.entries()) expect(value).toBeCloseTo(expected[i]!, 4);
        },
      ),
      { numRuns: 20 },
    );
  });

  it('finds weights and bias, and the error that is left', async () => {
    const truth = Float32Array.of(1, -2, 0.5);
    const tokens = 400;
    const make = () => {
      const x = draw(tokens * 2);
      const e = Float32Array.from({ length: tokens }, (_, t) => {
        return truth[0]! * x[2 * t]! + truth[1]! * x[2 * t + 1]! + truth[2]! + 0.01 * normal();
      });
      return sums(x, e, new Float32Array(tokens).fill(1), true);
    };
    const [fit, heldOut] = [await make(), await make()];
    const found = await ridge(products, fit, heldOut);
    for (const [i, value] of truth.entries()) expect(found.solution![i]).toBeCloseTo(value, 2);
    expect(found.lambda).toBe(1e-4);
    expect(found.after / found.before).toBeLessThan(1e-3);
  });

  it('gives nothing where held-out tokens would be predicted worse', async () => {
    const x = draw(50 * 3);
    const e = x.map((value) => -value);
    const weights = new Float32Array(50).fill(1);
    const found = await ridge(products, await sums(x, e, weights), await sums(x, x, weights));
    expect(found).toMatchObject({ solution: undefined, lambda: undefined });
    expect(found.after).toBe(found.before);
  });

  it('chooses a large λ where there is little to learn from', async () => {
    const features = 20;
    // Draws of its own: how many others take depends on the properties that are tried before.
    const own = normals(seededRandom(11));
    const noisy = (tokens: number) => {
      const x = Float32Array.from({ length: tokens * features }, own);
      const e = Float32Array.from({ length: tokens }, (_, t) => 0.5 * x[t * features]! + own());
      return sums(x, e, new Float32Array(tokens).fill(1));
    };
    const found = await ridge(products, await noisy(60), await noisy(2000));
    expect(found.lambda).toBeGreaterThanOrEqual(0.1);
  });
});

import { MetricError } from '@cqil/core';
import type { Matrix, Products } from '../recover/products.js';

/** Side of the blocks: what is outside the diagonal ones is left to ONNX Runtime. */
const BLOCK = 128;

/**
 * The factors of a symmetric positive definite matrix `A = U D Uᵀ`, U with ones on its diagonal and nothing below it, D
 * diagonal: Cholesky's factorisation from the last row to the first, by blocks (Golub and Van Loan, "Matrix Computations",
 * 4.2.5).
 *
 * @param matrix `[n, n]`; read where `shift` is added to its diagonal; not changed
 * @returns U `[n, n]`, row-major; what is below its diagonal means nothing
 * @throws MetricError `MATRIX_NOT_POSITIVE`
 */
export async function upperFactors(
  products: Products,
  matrix: Matrix,
  shift: number,
): Promise<{ upper: Float64Array; diagonal: Float64Array }> {
  const n = matrix.rows;
  // Turned by 180°, the factor is Cholesky's own, lower one, row by row.
  const a = Float64Array.from(matrix.data).reverse();
  for (let i = 0; i < n; i++) a[i * n + i]! += shift;
  for (let at = 0; at < n; at += BLOCK) {
    const end = Math.min(at + BLOCK, n);
    factorColumns(a, n, at, end);
    if (end === n) break;
    const below: Matrix = {
      rows: n - end,
      columns: end - at,
      data: new Float64Array((n - end) * (end - at)),
    };
    for (let i = end; i < n; i++) {
      below.data.set(a.subarray(i * n + at, i * n + end), (i - end) * (end - at));
    }
    const update = await products.multiply(below, below, true);
    for (let i = end; i < n; i++) {
      for (let j = end; j <= i; j++) a[i * n + j]! -= update.data[(i - end) * (n - end) + (j - end)]!;
    }
  }
  const upper = a.reverse();
  const diagonal = new Float64Array(n);
  for (let k = 0; k < n; k++) {
    const root = upper[k * n + k]!;
    diagonal[k] = root * root;
    for (let i = 0; i <= k; i++) upper[i * n + k]! /= root;
  }
  return { upper, diagonal };
}

/** Columns `at` to `end` of the lower factor, in place, when all before them have been subtracted. */
function factorColumns(a: Float64Array, n: number, at: number, end: number): void {
  for (let i = at; i < n; i++) {
    const row = i * n;
    for (let j = at; j < Math.min(i + 1, end); j++) {
      const other = j * n;
      let sum = a[row + j]!;
      for (let k = at; k < j; k++) sum -= a[row + k]! * a[other + k]!;
      if (i > j) a[row + j] = sum / a[other + j]!;
      else if (sum > 0 && Number.isFinite(sum)) a[row + j] = Math.sqrt(sum);
      else throw notPositive(n - 1 - j, sum);
    }
  }
}

function notPositive(at: number, value: number): MetricError {
  return new MetricError(
    'MATRIX_NOT_POSITIVE',
    'A matrix that was to be factored is not positive definite.',
    {
      expected: 'a Gram matrix with something added to its diagonal',
      found: `${value} at pivot ${at}`,
      hint: 'Give more, and more varied, calibration text.',
    },
  );
}

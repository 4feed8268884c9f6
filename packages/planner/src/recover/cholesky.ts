import { MetricError } from '@cqil/core';
import type { Matrix, Products } from './products.js';

/** Side of the blocks: what is outside the diagonal ones is left to ONNX Runtime. */
const BLOCK = 192;

/**
 * The Cholesky factor of a symmetric positive definite matrix, L with A = L Lᵀ, by blocks (right-looking; Golub and Van
 * Loan, "Matrix Computations", 4.2.5): the diagonal blocks are factored here, all products run in ONNX Runtime.
 */
export class Cholesky {
  readonly #n: number;
  /** L, row-major; what is above the diagonal means nothing. */
  readonly #factor: Float64Array;
  /** The inverses of L's diagonal blocks. */
  readonly #inverses: readonly Matrix[];
  readonly #products: Products;

  private constructor(n: number, factor: Float64Array, inverses: readonly Matrix[], products: Products) {
    this.#n = n;
    this.#factor = factor;
    this.#inverses = inverses;
    this.#products = products;
  }

  /**
   * @param matrix `[n, n]`; read where `shift` is added to its diagonal; not changed
   * @throws MetricError `MATRIX_NOT_POSITIVE` where the matrix is not positive definite in float64
   */
  static async factor(products: Products, matrix: Matrix, shift = 0): Promise<Cholesky> {
    const n = matrix.rows;
    const a = Float64Array.from(matrix.data);
    for (let i = 0; i < n; i++) a[i * n + i]! += shift;
    const inverses: Matrix[] = [];
    for (let at = 0; at < n; at += BLOCK) {
      const size = Math.min(BLOCK, n - at);
      factorBlock(a, n, at, size);
      const inverse = invertBlock(a, n, at, size);
      inverses.push(inverse);
      const behind = at + size;
      if (behind === n) break;
      const below = await products.multiply(cut(a, n, behind, n, at, behind), inverse, true);
      paste(a, n, below, behind, at);
      const update = await products.multiply(below, below, true);
      subtract(a, n, update, behind);
    }
    return new Cholesky(n, a, inverses, products);
  }

  /** X with A X = B. */
  async solve(b: Matrix): Promise<Matrix> {
    const half = await this.#substitute(b, false);
    return this.#substitute(half, true);
  }

  /** L X = B, or Lᵀ X = B. */
  async #substitute(b: Matrix, transposed: boolean): Promise<Matrix> {
    const n = this.#n;
    const m = b.columns;
    const x = Float64Array.from(b.data);
    const order = this.#inverses.map((_, index) => index);
    if (transposed) order.reverse();
    for (const index of order) {
      const inverse = this.#inverses[index]!;
      const at = index * BLOCK;
      const end = at + inverse.rows;
      const [from, to] = transposed ? [end, n] : [0, at];
      const block: Matrix = { rows: inverse.rows, columns: m, data: x.slice(at * m, end * m) };
      if (to > from) {
        const known: Matrix = { rows: to - from, columns: m, data: x.subarray(from * m, to * m) };
        const left = transposed
          ? transpose(cut(this.#factor, n, from, to, at, end))
          : cut(this.#factor, n, at, end, from, to);
        const sum = await this.#products.multiply(left, known);
        for (let i = 0; i < block.data.length; i++) block.data[i]! -= sum.data[i]!;
      }
      const solved = await this.#products.multiply(transposed ? transpose(inverse) : inverse, block);
      x.set(solved.data, at * m);
    }
    return { rows: n, columns: m, data: x };
  }
}

/** Factors the diagonal block in place. */
function factorBlock(a: Float64Array, n: number, at: number, size: number): void {
  for (let j = at; j < at + size; j++) {
    for (let i = j; i < at + size; i++) {
      let sum = a[i * n + j]!;
      for (let k = at; k < j; k++) sum -= a[i * n + k]! * a[j * n + k]!;
      if (i > j) a[i * n + j] = sum / a[j * n + j]!;
      else if (sum > 0 && Number.isFinite(sum)) a[j * n + j] = Math.sqrt(sum);
      else throw notPositive(j, sum);
    }
  }
}

function invertBlock(a: Float64Array, n: number, at: number, size: number): Matrix {
  const data = new Float64Array(size * size);
  for (let j = 0; j < size; j++) {
    data[j * size + j] = 1 / a[(at + j) * n + at + j]!;
    for (let i = j + 1; i < size; i++) {
      let sum = 0;
      const row = (at + i) * n + at;
      for (let k = j; k < i; k++) sum += a[row + k]! * data[k * size + j]!;
      data[i * size + j] = -sum / a[row + i]!;
    }
  }
  return { rows: size, columns: size, data };
}

function cut(a: Float64Array, n: number, top: number, bottom: number, left: number, right: number): Matrix {
  const [rows, columns] = [bottom - top, right - left];
  const data = new Float64Array(rows * columns);
  for (let row = 0; row < rows; row++) {
    const from = (top + row) * n + left;
    data.set(a.subarray(from, from + columns), row * columns);
  }
  return { rows, columns, data };
}

function paste(a: Float64Array, n: number, block: Matrix, top: number, left: number): void {
  const { rows, columns, data } = block;
  for (let row = 0; row < rows; row++) {
    a.set(data.subarray(row * columns, (row + 1) * columns), (top + row) * n + left);
  }
}

function subtract(a: Float64Array, n: number, { rows, columns, data }: Matrix, at: number): void {
  for (let row = 0; row < rows; row++) {
    const to = (at + row) * n + at;
    for (let column = 0; column <= row; column++) a[to + column]! -= data[row * columns + column]!;
  }
}

function transpose({ rows, columns, data }: Matrix): Matrix {
  const turned = new Float64Array(data.length);
  for (let i = 0; i < rows; i++)
    for (let j = 0; j < columns; j++) turned[j * rows + i] = data[i * columns + j]!;
  return { rows: columns, columns: rows, data: turned };
}

function notPositive(at: number, value: number): MetricError {
  return new MetricError(
    'MATRIX_NOT_POSITIVE',
    'A matrix that was to be inverted is not positive definite.',
    {
      expected: 'a Gram matrix with something added to its diagonal',
      found: `${value} at pivot ${at}`,
      hint: 'Give more, and more varied, calibration text.',
    },
  );
}

import type { Matrix, Products } from '../recover/products.js';
import type { QuantisedBlocks } from './blocks.js';
import { Coder, checkMatrix } from './coder.js';
import { upperFactors } from './factor.js';
import { GridSearch } from './grid.js';
import type { RoundOptions } from './round.js';

export interface CompensateOptions extends RoundOptions {
  /** Added to the diagonal, relative to its mean; 0.01 when absent. */
  readonly damping?: number;
}

/** Inputs whose errors are carried over at once, by ONNX Runtime, to those behind them. */
const LAZY = 128;

/**
 * Rounds a matrix so that what it gives on inputs of a known distribution changes least: input by input, each rounding
 * takes up the errors of those before it, as far as the inputs go together (GPTQ, arXiv 2210.17323). With
 * `H = XᵀX + λI = U D Uᵀ`, U unit upper triangular, the error that is made less is
 *
 *     tr (W − Ŵ)ᵀ H (W − Ŵ) = Σ_k D_kk ‖ w_k + Σ_{i<k} U_ik (w_i − ŵ_i) − ŵ_k ‖²
 *
 * so ŵ_k is the sum of the first two terms, rounded. That is the same as GPTQ's Cholesky factor of the inverse
 * (arXiv 2307.13304, theorem 6), without an inverse.
 *
 * Blocks come in order of their share in the diagonal of H, largest first, and the inputs in a block, too: what matters
 * most is rounded when the least error has come together. Scale and zero point of a block are chosen when all that
 * comes before it is rounded, for the values that it then has.
 *
 * @param weight row-major `[inFeatures, outFeatures]`
 * @param gram XᵀX of the inputs, `[inFeatures, inFeatures]`
 * @throws UsageError `QUANTISE_SHAPE`, `QUANTISE_RANGE`; MetricError `MATRIX_NOT_POSITIVE`
 */
export async function roundCompensated(
  products: Products,
  weight: Float32Array,
  gram: Float64Array,
  options: CompensateOptions,
): Promise<QuantisedBlocks> {
  checkMatrix(weight, options);
  const { inFeatures: n, outFeatures: width, bits, blockSize, asymmetric, scaleType = 'float32' } = options;
  const order = inputOrder(gram, n, blockSize);
  const { matrix, mean } = permuted(gram, order);
  const shift = mean > 0 ? mean * (options.damping ?? 0.01) : 1;
  const { upper, diagonal } = await upperFactors(products, matrix, shift);
  const coder = new Coder({ inFeatures: n, outFeatures: width, bits, blockSize, scaleType }, asymmetric);
  const search = new GridSearch({ bits, asymmetric, scaleType });
  const last = 2 ** bits - 1;
  const values = new Float64Array(blockSize);
  const scales = new Float64Array(width);
  const zeros = new Float64Array(width);
  /** w − ŵ, in order. */
  const errors = new Float64Array(n * width);
  const span = Math.max(blockSize, LAZY);
  for (let from = 0; from < n; from += span) {
    const to = Math.min(from + span, n);
    const rows = await startRows(products, weight, order, upper, errors, { from, to, n, width });
    for (let at = from; at < to; at += blockSize) {
      const block = Math.floor(order[at]! / blockSize);
      const weights = diagonal.subarray(at, at + blockSize);
      for (let column = 0; column < width; column++) {
        for (let i = 0; i < blockSize; i++) values[i] = rows[(at - from + i) * width + column]!;
        search.find(values, weights);
        coder.setGrid(column, block, search.scale, search.zero);
        scales[column] = search.scale;
        zeros[column] = search.zero;
      }
      for (let k = at; k < at + blockSize; k++) {
        const input = order[k]!;
        const row = (k - from) * width;
        for (let column = 0; column < width; column++) {
          const scale = scales[column]!;
          const zero = zeros[column]!;
          let code = scale === 0 ? zero : Math.floor(rows[row + column]! / scale + zero + 0.5);
          if (code < 0) code = 0;
          else if (code > last) code = last;
          coder.setCode(column, input, code);
          errors[k * width + column] = weight[input * width + column]! - (code - zero) * scale;
        }
        for (let j = k + 1; j < to; j++) {
          const factor = upper[k * n + j]!;
          const target = (j - from) * width;
          const source = k * width;
          for (let column = 0; column < width; column++)
            rows[target + column]! += factor * errors[source + column]!;
        }
      }
    }
  }
  return coder.result;
}

/** Rows `from` to `to` of W, with what the errors of all rows before them add. */
async function startRows(
  products: Products,
  weight: Float32Array,
  order: Uint32Array,
  upper: Float64Array,
  errors: Float64Array,
  { from, to, n, width }: { from: number; to: number; n: number; width: number },
): Promise<Float64Array> {
  const rows = new Float64Array((to - from) * width);
  if (from > 0) {
    const factors: Matrix = { rows: to - from, columns: from, data: new Float64Array((to - from) * from) };
    for (let i = 0; i < from; i++) {
      for (let k = from; k < to; k++) factors.data[(k - from) * from + i] = upper[i * n + k]!;
    }
    const known: Matrix = { rows: from, columns: width, data: errors.subarray(0, from * width) };
    rows.set((await products.multiply(factors, known)).data);
  }
  for (let k = from; k < to; k++) {
    const source = order[k]! * width;
    const target = (k - from) * width;
    for (let column = 0; column < width; column++) rows[target + column]! += weight[source + column]!;
  }
  return rows;
}

/** Inputs by block, blocks by the sum of their diagonal, in a block by the diagonal; of equals the first. */
function inputOrder(gram: Float64Array, n: number, blockSize: number): Uint32Array {
  const size = (k: number) => gram[k * n + k]!;
  const blocks = Array.from({ length: n / blockSize }, (_, block) => {
    const inputs = Array.from({ length: blockSize }, (_, i) => block * blockSize + i);
    inputs.sort((a, b) => size(b) - size(a) || a - b);
    return { inputs, sum: inputs.reduce((sum, k) => sum + size(k), 0) };
  });
  blocks.sort((a, b) => b.sum - a.sum || a.inputs[0]! - b.inputs[0]!);
  return Uint32Array.from(blocks.flatMap(({ inputs }) => inputs));
}

function permuted(gram: Float64Array, order: Uint32Array): { matrix: Matrix; mean: number } {
  const n = order.length;
  const data = new Float64Array(n * n);
  let sum = 0;
  for (let i = 0; i < n; i++) {
    const row = order[i]! * n;
    for (let j = 0; j < n; j++) data[i * n + j] = gram[row + order[j]!]!;
    sum += data[i * n + i]!;
  }
  return { matrix: { rows: n, columns: n, data }, mean: sum / n };
}

import type { BlockOptions, QuantisedBlocks } from './blocks.js';
import { Coder, checkMatrix } from './coder.js';
import { GridSearch } from './grid.js';

export interface RoundOptions extends BlockOptions {
  /** Whether blocks have zero points of their own; if not, it is 2^(bits−1). */
  readonly asymmetric: boolean;
}

/**
 * Rounds each value of a matrix to the nearest that its block has; scales and zero points are searched for block by block
 * (see `GridSearch`).
 *
 * @param weight row-major `[inFeatures, outFeatures]`
 * @throws UsageError `QUANTISE_SHAPE`, `QUANTISE_RANGE`
 */
export function roundToNearest(weight: Float32Array, options: RoundOptions): QuantisedBlocks {
  checkMatrix(weight, options);
  const { inFeatures, outFeatures, bits, blockSize, asymmetric, scaleType = 'float32' } = options;
  const coder = new Coder({ inFeatures, outFeatures, bits, blockSize, scaleType }, asymmetric);
  const search = new GridSearch({ bits, asymmetric, scaleType });
  const last = 2 ** bits - 1;
  const values = new Float64Array(blockSize);
  const ones = new Float64Array(blockSize).fill(1);
  for (let block = 0; block < inFeatures / blockSize; block++) {
    const at = block * blockSize;
    for (let column = 0; column < outFeatures; column++) {
      for (let i = 0; i < blockSize; i++) values[i] = weight[(at + i) * outFeatures + column]!;
      search.find(values, ones);
      const { scale, zero } = search;
      coder.setGrid(column, block, scale, zero);
      for (let i = 0; i < blockSize; i++) {
        const code = scale === 0 ? zero : Math.floor(values[i]! / scale + zero + 0.5);
        coder.setCode(column, at + i, Math.max(0, Math.min(last, code)));
      }
    }
  }
  return coder.result;
}

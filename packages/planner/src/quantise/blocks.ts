import { UsageError } from '@cqil/core';
import { floatToHalf, halfToFloat } from '../gguf/half.js';

export interface BlockOptions {
  /** Rows of the matrix. */
  readonly inFeatures: number;
  /** Columns of the matrix. */
  readonly outFeatures: number;
  readonly bits: 4 | 8;
  /** Neighbouring inputs that share one scale, a power of two from 16; `inFeatures` is a multiple of it. */
  readonly blockSize: number;
  /** In which type the scales will be stored: codes are chosen for the scales that are. `float32` when absent. */
  readonly scaleType?: 'float32' | 'float16';
}

/**
 * A matrix `[inFeatures, outFeatures]` in blocks along its inputs: `weight = (code − zero point) · scale`, the zero point
 * 2^(bits−1) where none is given.
 */
export interface QuantisedBlocks extends Required<BlockOptions> {
  /** `[outFeatures, inFeatures / blockSize, blockSize · bits / 8]`; of two 4-bit codes in a byte the first is low. */
  readonly codes: Uint8Array;
  /** `[outFeatures, inFeatures / blockSize]`, each a value that `scaleType` has. */
  readonly scales: Float32Array;
  /** `[outFeatures, inFeatures / blockSize]`, one code each, unpacked. */
  readonly zeroPoints?: Uint8Array;
}

/**
 * Quantises a matrix to the blocks that ONNX Runtime's `MatMulNBits` reads: symmetric, each value rounded to the
 * nearest step, the block's largest magnitude on the last code. No value is further from its own than half a step (with
 * float16 scales, than half a step and what the rounding of the scale moves the last code).
 *
 * Zero points are the operator's default and so not stored.
 *
 * @param weight row-major `[inFeatures, outFeatures]`
 * @throws UsageError `QUANTISE_SHAPE`, `QUANTISE_RANGE` (a value that is not finite, or too large for the scale's type)
 */
export function quantiseBlocks(weight: Float32Array, options: BlockOptions): QuantisedBlocks {
  const { inFeatures, outFeatures, bits, blockSize, scaleType = 'float32' } = options;
  checkShape(weight, options);
  const zero = 2 ** (bits - 1);
  const last = zero - 1;
  const blocks = inFeatures / blockSize;
  const blob = (blockSize * bits) / 8;
  const codes = new Uint8Array(outFeatures * blocks * blob);
  const scales = new Float32Array(outFeatures * blocks);
  const largest = new Float32Array(outFeatures);
  for (let block = 0; block < blocks; block++) {
    largest.fill(0);
    for (let k = block * blockSize; k < (block + 1) * blockSize; k++) {
      for (let column = 0; column < outFeatures; column++) {
        const magnitude = Math.abs(weight[k * outFeatures + column] as number);
        if (!(magnitude < Number.POSITIVE_INFINITY)) throw outOfRange(magnitude, k, column);
        if (magnitude > (largest[column] as number)) largest[column] = magnitude;
      }
    }
    for (let column = 0; column < outFeatures; column++) {
      const magnitude = largest[column] as number;
      const scale = scaleType === 'float16' ? halfScale(magnitude, last) : Math.fround(magnitude / last);
      if (!(scale < Number.POSITIVE_INFINITY)) throw outOfRange(magnitude, block * blockSize, column);
      scales[column * blocks + block] = scale;
      const at = (column * blocks + block) * blob;
      for (let i = 0; i < blockSize; i++) {
        const value = weight[(block * blockSize + i) * outFeatures + column] as number;
        const step = scale === 0 ? 0 : Math.max(-last, Math.min(last, Math.round(value / scale)));
        if (bits === 8) codes[at + i] = step + zero;
        else codes[at + (i >> 1)] = (codes[at + (i >> 1)] as number) | ((step + zero) << (4 * (i & 1)));
      }
    }
  }
  return { inFeatures, outFeatures, bits, blockSize, scaleType, codes, scales };
}

/** The matrix that blocks stand for, row-major `[inFeatures, outFeatures]`. */
export function dequantiseBlocks(blocks: QuantisedBlocks): Float32Array {
  const { inFeatures, outFeatures, bits, blockSize, codes, scales, zeroPoints } = blocks;
  const perColumn = inFeatures / blockSize;
  const blob = (blockSize * bits) / 8;
  const weight = new Float32Array(inFeatures * outFeatures);
  for (let column = 0; column < outFeatures; column++) {
    for (let k = 0; k < inFeatures; k++) {
      const block = column * perColumn + Math.floor(k / blockSize);
      const i = k % blockSize;
      const byte = codes[block * blob + ((i * bits) >> 3)] as number;
      const code = bits === 8 ? byte : (byte >> (4 * (i & 1))) & 15;
      const zero = zeroPoints?.[block] ?? 2 ** (bits - 1);
      weight[k * outFeatures + column] = (code - zero) * (scales[block] as number);
    }
  }
  return weight;
}

/**
 * The float16 scale nearest to `magnitude / last`, or the next one up where the last code would be cut by more than half
 * a step: that happens among the smallest numbers only, whose neighbours lie far apart.
 */
function halfScale(magnitude: number, last: number): number {
  if (magnitude === 0) return 0;
  let half = floatToHalf(magnitude / last);
  while (halfToFloat(half) * (last + 0.5) < magnitude) half++;
  return halfToFloat(half);
}

/** @throws UsageError `QUANTISE_SHAPE` */
export function checkShape(weight: Float32Array, options: BlockOptions): void {
  const { inFeatures, outFeatures, blockSize } = options;
  const powerOfTwo = Number.isInteger(Math.log2(blockSize)) && blockSize >= 16;
  const fits = inFeatures > 0 && inFeatures % blockSize === 0 && weight.length === inFeatures * outFeatures;
  if (powerOfTwo && fits) return;
  throw new UsageError('QUANTISE_SHAPE', 'A matrix does not divide into these blocks.', {
    expected: `[inFeatures, outFeatures] values, inFeatures a multiple of a block size of 16, 32, 64, …`,
    found: `${weight.length} values for [${inFeatures}, ${outFeatures}], blocks of ${blockSize}`,
  });
}

function outOfRange(value: number, row: number, column: number): UsageError {
  return new UsageError('QUANTISE_RANGE', 'A value of the matrix cannot be quantised.', {
    expected: 'finite values that the type of the scales can hold',
    found: `${value} at row ${row}, column ${column}`,
  });
}

import { UsageError } from '@cqil/core';
import { type BlockOptions, checkShape, type QuantisedBlocks } from './blocks.js';

const LARGEST_HALF = 65504;

/**
 * @param weight row-major `[inFeatures, outFeatures]`
 * @throws UsageError `QUANTISE_SHAPE`, `QUANTISE_RANGE`
 */
export function checkMatrix(weight: Float32Array, options: BlockOptions): void {
  checkShape(weight, options);
  const { bits, scaleType } = options;
  // The whole range of a block, at worst, in steps that the scales' type can hold.
  const most = scaleType === 'float16' ? (LARGEST_HALF * (2 ** bits - 1)) / 2 : Number.MAX_VALUE;
  for (const [i, value] of weight.entries()) {
    if (Math.abs(value) <= most) continue;
    throw new UsageError('QUANTISE_RANGE', 'A value of the matrix cannot be quantised.', {
      expected: 'finite values that the type of the scales can hold',
      found: `${value} at row ${Math.floor(i / options.outFeatures)}, column ${i % options.outFeatures}`,
    });
  }
}

/** The codes, scales and zero points of a matrix while they are found. */
export class Coder {
  readonly #blocks: number;
  readonly #blob: number;
  readonly result: QuantisedBlocks;

  constructor(shape: Omit<QuantisedBlocks, 'codes' | 'scales' | 'zeroPoints'>, asymmetric: boolean) {
    const { inFeatures, outFeatures, blockSize, bits } = shape;
    this.#blocks = inFeatures / blockSize;
    this.#blob = (blockSize * bits) / 8;
    const count = outFeatures * this.#blocks;
    this.result = {
      ...shape,
      codes: new Uint8Array(count * this.#blob),
      scales: new Float32Array(count),
      ...(asymmetric ? { zeroPoints: new Uint8Array(count) } : {}),
    };
  }

  setGrid(column: number, block: number, scale: number, zero: number): void {
    const { scales, zeroPoints } = this.result;
    scales[column * this.#blocks + block] = scale;
    if (zeroPoints !== undefined) zeroPoints[column * this.#blocks + block] = zero;
  }

  /** Puts a code at input `k`, where none has been put yet. */
  setCode(column: number, k: number, code: number): void {
    const { codes, bits, blockSize } = this.result;
    const at = (column * this.#blocks + Math.floor(k / blockSize)) * this.#blob;
    const i = k % blockSize;
    if (bits === 8) codes[at + i] = code;
    else codes[at + (i >> 1)]! |= code << (4 * (i & 1));
  }
}

/** A matrix in blocks along its inputs, as `MatMulNBits` takes it. */
export interface BlockShape {
  /** A multiple of the block size. */
  readonly inFeatures: number;
  readonly bits: 4 | 8;
  readonly blockSize: number;
}

/**
 * A matrix in blocks that have an offset each, `(code − centre) · scale + offset`, laid out for one `MatMulNBits`.
 *
 * An offset multiplies the sum of its block's inputs. So the product reads these sums as further inputs, once for each
 * digit of what integer zero points leave of the offsets: `[x, sums, sums]` with 4 bits, `[x, sums]` with 8.
 */
export interface OffsetLayout extends BlockShape {
  /** Blocks of the matrix itself, `inFeatures / blockSize`: there are as many sums. */
  readonly blocks: number;
  /** How often the sums are read: `8 / bits`. */
  readonly digits: number;
  /** Inputs of one digit: the sums, padded to whole blocks. */
  readonly digitFeatures: number;
  /** All inputs of the product. */
  readonly features: number;
  /** All blocks of the product, `features / blockSize`. */
  readonly totalBlocks: number;
}

export function offsetLayout({ inFeatures, bits, blockSize }: BlockShape): OffsetLayout {
  const blocks = inFeatures / blockSize;
  const digits = 8 / bits;
  const digitFeatures = Math.ceil(blocks / blockSize) * blockSize;
  const features = inFeatures + digits * digitFeatures;
  return {
    inFeatures,
    bits,
    blockSize,
    blocks,
    digits,
    digitFeatures,
    features,
    totalBlocks: features / blockSize,
  };
}

/** The layout in which a product of so many inputs is; `undefined` where no matrix would need as many. */
export function layoutOfProduct(features: number, bits: number, blockSize: number): OffsetLayout | undefined {
  if ((bits !== 4 && bits !== 8) || features % blockSize !== 0) return undefined;
  // More inputs never need fewer, so that there is one candidate at most.
  let [low, high] = [1, features / blockSize];
  while (low <= high) {
    const blocks = Math.floor((low + high) / 2);
    const layout = offsetLayout({ inFeatures: blocks * blockSize, bits, blockSize });
    if (layout.features === features) return layout;
    if (layout.features < features) low = blocks + 1;
    else high = blocks - 1;
  }
  return undefined;
}

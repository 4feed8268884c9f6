import type { OffsetLayout } from './layout.js';

/** Blocks with an offset each: `value = (code − 2^(bits−1)) · scale + offset`. */
export interface OffsetBlocks {
  /** `[outputs, blocks, blockSize · bits / 8]`; of two 4-bit codes in a byte the first is low. */
  readonly codes: Uint8Array;
  /** `[outputs, blocks]` */
  readonly scales: Float32Array;
  /** `[outputs, blocks]` */
  readonly offsets: Float32Array;
}

/** The same for one `MatMulNBits` that reads the input and the sums of its blocks. */
export interface ProductBlocks {
  /** `[outputs, totalBlocks, blockSize · bits / 8]` */
  readonly codes: Uint8Array;
  /** `[outputs, totalBlocks]` */
  readonly scales: Float32Array;
  /** `[outputs, ⌈totalBlocks · bits / 8⌉]`, the first in the low bits. */
  readonly zeroPoints: Uint8Array;
}

/**
 * Lays offsets out for a product. The nearest integer zero point takes most of an offset; the rest, at most half a
 * step where the block's range holds zero, is written in codes as well, scaled by block of sums: in one digit of 8
 * bits, or in two of 4, the second for what the first leaves. What is lost is at most 1/225 of the largest rest among
 * the `blockSize` neighbours that share a scale (1/255 with 8 bits), so 1/450 of a step; half-precision minima, as GGUF
 * has them, are rounded by as much. Blocks whose values are all the same lose nothing.
 */
export function encodeOffsets(
  { codes, scales, offsets }: OffsetBlocks,
  outputs: number,
  layout: OffsetLayout,
): ProductBlocks {
  const { bits, blockSize, blocks, digits, digitFeatures, totalBlocks } = layout;
  const blob = (blockSize * bits) / 8;
  const centre = 2 ** (bits - 1);
  const last = 2 ** bits - 1;
  const filler = bits === 8 ? centre : centre * 17;
  const out = {
    codes: new Uint8Array(outputs * totalBlocks * blob).fill(filler),
    scales: new Float32Array(outputs * totalBlocks),
    zeroPoints: new Uint8Array(outputs * zeroPointBytes(layout)).fill(filler),
  };
  const rest = new Float64Array(digitFeatures);
  for (let output = 0; output < outputs; output++) {
    for (let block = 0; block < blocks; block++) {
      const from = output * blocks + block;
      const to = output * totalBlocks + block;
      const [scale, offset] = [scales[from] as number, offsets[from] as number];
      if (scale === 0) {
        // One value throughout: a step of its size above zero, or below.
        out.scales[to] = offset;
        out.codes.fill(bits === 8 ? centre + 1 : (centre + 1) * 17, to * blob, (to + 1) * blob);
        rest[block] = 0;
        continue;
      }
      const zero = Math.max(0, Math.min(last, Math.round(centre - offset / scale)));
      rest[block] = offset + (zero - centre) * scale;
      out.scales[to] = scale;
      out.codes.set(codes.subarray(from * blob, (from + 1) * blob), to * blob);
      setZeroPoint(out.zeroPoints, output, block, zero, layout);
    }
    for (let digit = 0; digit < digits; digit++) {
      const first = output * totalBlocks + blocks + (digit * digitFeatures) / blockSize;
      writeDigit(rest, first, out, layout);
    }
  }
  return out;
}

/** Writes the codes nearest to what is left of one output's offsets, and leaves the difference. */
function writeDigit(rest: Float64Array, first: number, out: ProductBlocks, layout: OffsetLayout): void {
  const { bits, blockSize, digitFeatures } = layout;
  const blob = (blockSize * bits) / 8;
  const centre = 2 ** (bits - 1);
  for (let start = 0; start < digitFeatures; start += blockSize) {
    const part = rest.subarray(start, start + blockSize);
    let largest = 0;
    for (const value of part) largest = Math.max(largest, Math.abs(value));
    // Codes reach from −centre to centre − 1; the largest value is at most half a step beyond.
    const scale = Math.fround(largest / (centre - 0.5));
    const block = first + start / blockSize;
    out.scales[block] = scale;
    if (scale === 0) continue;
    for (let i = 0; i < blockSize; i++) {
      const value = part[i] as number;
      const step = Math.max(-centre, Math.min(centre - 1, Math.round(value / scale)));
      part[i] = value - step * scale;
      const at = block * blob + ((i * bits) >> 3);
      const code = step + centre;
      if (bits === 8) out.codes[at] = code;
      else
        out.codes[at] =
          i % 2 === 0
            ? ((out.codes[at] as number) & 0xf0) | code
            : ((out.codes[at] as number) & 15) | (code << 4);
    }
  }
}

/** What `encodeOffsets` laid out, with offsets as the product adds them. */
export function decodeOffsets(product: ProductBlocks, outputs: number, layout: OffsetLayout): OffsetBlocks {
  const { bits, blockSize, blocks, digits, digitFeatures, totalBlocks } = layout;
  const blob = (blockSize * bits) / 8;
  const centre = 2 ** (bits - 1);
  const out = {
    codes: new Uint8Array(outputs * blocks * blob),
    scales: new Float32Array(outputs * blocks),
    offsets: new Float32Array(outputs * blocks),
  };
  for (let output = 0; output < outputs; output++) {
    const row = output * totalBlocks;
    out.codes.set(product.codes.subarray(row * blob, (row + blocks) * blob), output * blocks * blob);
    for (let block = 0; block < blocks; block++) {
      const scale = product.scales[row + block] as number;
      let offset = (centre - zeroPoint(product.zeroPoints, output, block, layout)) * scale;
      for (let digit = 0; digit < digits; digit++) {
        const column = digit * digitFeatures + block;
        const place = row + blocks + Math.floor(column / blockSize);
        const i = column % blockSize;
        const byte = product.codes[place * blob + ((i * bits) >> 3)] as number;
        const code = bits === 8 ? byte : (byte >> (4 * (i & 1))) & 15;
        offset += (code - centre) * (product.scales[place] as number);
      }
      out.scales[output * blocks + block] = scale;
      out.offsets[output * blocks + block] = offset;
    }
  }
  return out;
}

/** Bytes of one output's zero points. */
export function zeroPointBytes({ totalBlocks, bits }: OffsetLayout): number {
  return Math.ceil((totalBlocks * bits) / 8);
}

function setZeroPoint(
  packed: Uint8Array,
  output: number,
  block: number,
  value: number,
  layout: OffsetLayout,
): void {
  const { bits } = layout;
  const at = output * zeroPointBytes(layout) + ((block * bits) >> 3);
  const shift = (block * bits) & 7;
  packed[at] = ((packed[at] as number) & ~((2 ** bits - 1) << shift)) | (value << shift);
}

function zeroPoint(packed: Uint8Array, output: number, block: number, layout: OffsetLayout): number {
  const { bits } = layout;
  const byte = packed[output * zeroPointBytes(layout) + ((block * bits) >> 3)] as number;
  return (byte >> ((block * bits) & 7)) & (2 ** bits - 1);
}

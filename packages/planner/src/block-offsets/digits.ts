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
 * step where the block's range holds zero, is written in codes as well, the `blockSize` sums of neighbouring blocks
 * with one scale: in one digit of 8 bits, or in two of 4, the second for what the first leaves. Where steps are alike,
 * what is lost is at most 1/450 of the largest of them (1/510 with 8 bits); half-precision minima, as GGUF has them,
 * are rounded by as much. Where one block's steps are much larger than its neighbours', scales are chosen so that each
 * loses little of its own steps. Blocks whose values are all the same lose nothing.
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
  const steps = new Float64Array(digitFeatures);
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
        steps[block] = Number.POSITIVE_INFINITY;
        continue;
      }
      const zero = Math.max(0, Math.min(last, Math.round(centre - offset / scale)));
      rest[block] = offset + (zero - centre) * scale;
      steps[block] = Math.abs(scale);
      out.scales[to] = scale;
      out.codes.set(codes.subarray(from * blob, (from + 1) * blob), to * blob);
      setZeroPoint(out.zeroPoints, output, block, zero, layout);
    }
    for (let start = 0; start < blocks; start += blockSize) {
      const end = Math.min(blocks, start + blockSize);
      const scaled = digitise(rest.subarray(start, end), steps.subarray(start, end), digits, bits);
      for (const [digit, { scale, codes }] of scaled.entries()) {
        const block = output * totalBlocks + blocks + (digit * digitFeatures + start) / blockSize;
        out.scales[block] = scale;
        for (const [i, code] of codes.entries())
          setCode(out.codes, block * blockSize + i, code + centre, bits);
      }
    }
  }
  return out;
}

/** One digit of neighbouring values: `value ≈ scale · code`, codes from −2^(bits−1). */
interface Digit {
  readonly scale: number;
  readonly codes: Int8Array;
}

/** What a digit may lose of a block's own steps before other scales are tried. */
const ALLOWED = 1 / 64;
/** Scales that are tried for a digit: the one that reaches the largest value, its half, and so on. */
const HALVINGS = 8;

/** Values as sums of digits, such that each loses little of its own step. */
function digitise(values: Float64Array, steps: Float64Array, digits: number, bits: number): Digit[] {
  const whole = search(values, steps, digits, bits, 1);
  return whole.worst <= ALLOWED ? whole.digits : search(values, steps, digits, bits, HALVINGS).digits;
}

/** @returns the digits that lose the least in the mean of squares, and the most that one value loses, in its own steps */
function search(
  values: Float64Array,
  steps: Float64Array,
  digits: number,
  bits: number,
  halvings: number,
): { digits: Digit[]; loss: number; worst: number } {
  if (digits === 0) {
    let [loss, worst] = [0, 0];
    for (const [i, value] of values.entries()) {
      const lost = Math.abs(value) / (steps[i] as number);
      loss += lost * lost;
      worst = Math.max(worst, lost);
    }
    return { digits: [], loss, worst };
  }
  const centre = 2 ** (bits - 1);
  let largest = 0;
  for (const value of values) largest = Math.max(largest, Math.abs(value));
  let best: { digits: Digit[]; loss: number; worst: number } | undefined;
  const left = new Float64Array(values.length);
  for (let halving = 0; halving < halvings; halving++) {
    // Codes reach from −centre to centre − 1; the largest value is at most half a step beyond.
    const scale = Math.fround(largest / (centre - 0.5) / 2 ** halving);
    const codes = new Int8Array(values.length);
    for (const [i, value] of values.entries()) {
      const code = scale === 0 ? 0 : Math.max(-centre, Math.min(centre - 1, Math.round(value / scale)));
      codes[i] = code;
      left[i] = value - code * scale;
    }
    const rest = search(left, steps, digits - 1, bits, halvings);
    if (best === undefined || rest.loss < best.loss)
      best = { ...rest, digits: [{ scale, codes }, ...rest.digits] };
    if (scale === 0) break;
  }
  return best as { digits: Digit[]; loss: number; worst: number };
}

function setCode(packed: Uint8Array, index: number, code: number, bits: number): void {
  const at = (index * bits) >> 3;
  if (bits === 8) packed[at] = code;
  else if (index % 2 === 0) packed[at] = ((packed[at] as number) & 0xf0) | code;
  else packed[at] = ((packed[at] as number) & 15) | (code << 4);
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

import { unpackScales } from './dequantise.js';
import { halfTable } from './half.js';
import { type QuantType, quantLayout } from './types.js';

/**
 * Block-quantised values with the codes unpacked, one byte each:
 * `value = scale · (code − zero) + minimum`, scale (and minimum) one a block.
 */
export interface CodedBlocks {
  readonly codes: Uint8Array;
  readonly blockSize: number;
  readonly scales: Float32Array;
  /** The same for all blocks. */
  readonly zero: number;
  /** Absent for formats that are symmetric around zero. */
  readonly minima?: Float32Array;
}

/** What a block format is like, without looking at any block. */
export interface BlockFormat {
  /** Bits of a code. */
  readonly bits: 4 | 5 | 6 | 8;
  /** Values that share a scale. */
  readonly blockSize: 16 | 32;
  /** Whether blocks have a minimum of their own. */
  readonly hasMinimum: boolean;
}

type BlockType = Exclude<QuantType, 'F32' | 'F16' | 'BF16'>;

const FORMATS: Readonly<Record<BlockType, BlockFormat>> = {
  Q4_0: { bits: 4, blockSize: 32, hasMinimum: false },
  Q4_1: { bits: 4, blockSize: 32, hasMinimum: true },
  Q4_K: { bits: 4, blockSize: 32, hasMinimum: true },
  Q5_0: { bits: 5, blockSize: 32, hasMinimum: false },
  Q5_1: { bits: 5, blockSize: 32, hasMinimum: true },
  Q5_K: { bits: 5, blockSize: 32, hasMinimum: true },
  Q6_K: { bits: 6, blockSize: 16, hasMinimum: false },
  Q8_0: { bits: 8, blockSize: 32, hasMinimum: false },
};

export function isBlockType(type: QuantType): type is BlockType {
  return type in FORMATS;
}

export function blockFormat(type: BlockType): BlockFormat {
  return FORMATS[type];
}

const u16 = (bytes: Uint8Array, at: number): number => bytes[at]! | (bytes[at + 1]! << 8);

/** The codes, scales and minima of whole blocks. @see dequantise for the layouts */
export function readBlocks(type: BlockType, bytes: Uint8Array): CodedBlocks {
  const { blockSize: stored, blockBytes } = quantLayout(type);
  const count = bytes.byteLength / blockBytes;
  const { blockSize, hasMinimum } = FORMATS[type];
  const values = count * stored;
  const codes = new Uint8Array(values);
  const scales = new Float32Array(values / blockSize);
  const minima = hasMinimum ? new Float32Array(values / blockSize) : undefined;
  const out = { codes, blockSize, scales, zero: 0, ...(minima === undefined ? {} : { minima }) };
  switch (type) {
    case 'Q8_0':
      return { ...out, zero: readQ8(bytes, count, codes, scales) };
    case 'Q4_0':
      return { ...out, zero: readSmall(bytes, count, codes, scales, minima, false) };
    case 'Q4_1':
      return { ...out, zero: readSmall(bytes, count, codes, scales, minima, false) };
    case 'Q5_0':
    case 'Q5_1':
      return { ...out, zero: readSmall(bytes, count, codes, scales, minima, true) };
    case 'Q4_K':
    case 'Q5_K':
      readSuper(bytes, count, codes, scales, minima!, type === 'Q5_K');
      return out;
    case 'Q6_K':
      return { ...out, zero: readQ6(bytes, count, codes, scales) };
  }
}

/** Signed bytes become unsigned ones around 128. */
function readQ8(bytes: Uint8Array, count: number, codes: Uint8Array, scales: Float32Array): number {
  const half = halfTable();
  for (let b = 0, at = 0; b < count; b++, at += 34) {
    scales[b] = half[u16(bytes, at)]!;
    for (let j = 0; j < 32; j++) codes[32 * b + j] = bytes[at + 2 + j]! ^ 0x80;
  }
  return 128;
}

/** Q4_0, Q4_1, Q5_0, Q5_1: scale, perhaps minimum, perhaps fifth bits, then 16 bytes of nibbles. */
function readSmall(
  bytes: Uint8Array,
  count: number,
  codes: Uint8Array,
  scales: Float32Array,
  minima: Float32Array | undefined,
  fifth: boolean,
): number {
  const half = halfTable();
  const highAt = minima === undefined ? 2 : 4;
  const nibblesAt = highAt + (fifth ? 4 : 0);
  const size = nibblesAt + 16;
  for (let b = 0, at = 0; b < count; b++, at += size) {
    scales[b] = half[u16(bytes, at)]!;
    if (minima !== undefined) minima[b] = half[u16(bytes, at + 2)]!;
    const high = fifth ? u16(bytes, at + highAt) | (u16(bytes, at + highAt + 2) << 16) : 0;
    for (let j = 0; j < 16; j++) {
      const pair = bytes[at + nibblesAt + j]!;
      codes[32 * b + j] = (pair & 15) | (((high >>> j) & 1) << 4);
      codes[32 * b + 16 + j] = (pair >> 4) | (((high >>> (j + 16)) & 1) << 4);
    }
  }
  if (minima !== undefined) return 0;
  return fifth ? 16 : 8;
}

/** Q4_K and Q5_K: 8 blocks of 32 with 6-bit scales and minima of their own. */
function readSuper(
  bytes: Uint8Array,
  count: number,
  codes: Uint8Array,
  scales: Float32Array,
  minima: Float32Array,
  fifth: boolean,
): void {
  const half = halfTable();
  const size = fifth ? 176 : 144;
  const small = new Uint8Array(8);
  const low = new Uint8Array(8);
  for (let b = 0, at = 0; b < count; b++, at += size) {
    const d = half[u16(bytes, at)]!;
    const dmin = half[u16(bytes, at + 2)]!;
    unpackScales(bytes, at + 4, small, low);
    for (let j = 0; j < 8; j++) {
      scales[8 * b + j] = d * small[j]!;
      minima[8 * b + j] = -Math.fround(dmin * low[j]!);
    }
    const nibbles = at + (fifth ? 48 : 16);
    for (let pair = 0; pair < 4; pair++) {
      const to = 256 * b + 64 * pair;
      for (let l = 0; l < 32; l++) {
        const q = bytes[nibbles + 32 * pair + l]!;
        const high = fifth ? bytes[at + 16 + l]! >> (2 * pair) : 0;
        codes[to + l] = (q & 15) | ((high & 1) << 4);
        codes[to + 32 + l] = (q >> 4) | ((high & 2) << 3);
      }
    }
  }
}

function readQ6(bytes: Uint8Array, count: number, codes: Uint8Array, scales: Float32Array): number {
  const half = halfTable();
  for (let b = 0, at = 0; b < count; b++, at += 210) {
    const d = half[u16(bytes, at + 208)]!;
    for (let j = 0; j < 16; j++) scales[16 * b + j] = d * ((bytes[at + 192 + j]! << 24) >> 24);
    for (let part = 0; part < 2; part++) {
      for (let quarter = 0; quarter < 4; quarter++) {
        const low = at + 64 * part + 32 * (quarter & 1);
        const high = at + 128 + 32 * part;
        const to = 256 * b + 128 * part + 32 * quarter;
        const shift = quarter < 2 ? 0 : 4;
        for (let l = 0; l < 32; l++) {
          codes[to + l] =
            ((bytes[low + l]! >> shift) & 15) | (((bytes[high + l]! >> (2 * quarter)) & 3) << 4);
        }
      }
    }
  }
  return 32;
}

import { halfTable } from './half.js';
import { type QuantType, quantLayout } from './types.js';

/**
 * The block formats of the ggml library, turned into float32. All arithmetic is rounded to float32 where ggml's
 * own is, so that the results are equal to its reference, bit for bit.
 *
 * Source of the layouts: `ggml-common.h` (`block_q4_0` … `block_q6_K`).
 */
type BlockDecoder = (bytes: Uint8Array, out: Float32Array, blocks: number, half: Float32Array) => void;

const u16 = (bytes: Uint8Array, at: number): number => bytes[at]! | (bytes[at + 1]! << 8);
const { fround } = Math;

/** d (f16), 16 bytes: low nibbles are values 0–15, high nibbles 16–31. value = d · (q − 8) */
const q4_0: BlockDecoder = (bytes, out, blocks, half) => {
  for (let b = 0, at = 0, to = 0; b < blocks; b++, at += 18, to += 32) {
    const d = half[u16(bytes, at)]!;
    for (let j = 0; j < 16; j++) {
      const pair = bytes[at + 2 + j]!;
      out[to + j] = d * ((pair & 15) - 8);
      out[to + 16 + j] = d * ((pair >> 4) - 8);
    }
  }
};

/** d, m (f16), 16 bytes as in Q4_0. value = d · q + m */
const q4_1: BlockDecoder = (bytes, out, blocks, half) => {
  for (let b = 0, at = 0, to = 0; b < blocks; b++, at += 20, to += 32) {
    const d = half[u16(bytes, at)]!;
    const m = half[u16(bytes, at + 2)]!;
    for (let j = 0; j < 16; j++) {
      const pair = bytes[at + 4 + j]!;
      out[to + j] = fround(d * (pair & 15)) + m;
      out[to + 16 + j] = fround(d * (pair >> 4)) + m;
    }
  }
};

/** d (f16), 32 fifth bits, 16 bytes of nibbles. value = d · (q − 16) */
const q5_0: BlockDecoder = (bytes, out, blocks, half) => {
  for (let b = 0, at = 0, to = 0; b < blocks; b++, at += 22, to += 32) {
    const d = half[u16(bytes, at)]!;
    const high = u16(bytes, at + 2) | (u16(bytes, at + 4) << 16);
    for (let j = 0; j < 16; j++) {
      const pair = bytes[at + 6 + j]!;
      out[to + j] = d * (((pair & 15) | (((high >>> j) & 1) << 4)) - 16);
      out[to + 16 + j] = d * (((pair >> 4) | (((high >>> (j + 16)) & 1) << 4)) - 16);
    }
  }
};

/** d, m (f16), 32 fifth bits, 16 bytes of nibbles. value = d · q + m */
const q5_1: BlockDecoder = (bytes, out, blocks, half) => {
  for (let b = 0, at = 0, to = 0; b < blocks; b++, at += 24, to += 32) {
    const d = half[u16(bytes, at)]!;
    const m = half[u16(bytes, at + 2)]!;
    const high = u16(bytes, at + 4) | (u16(bytes, at + 6) << 16);
    for (let j = 0; j < 16; j++) {
      const pair = bytes[at + 8 + j]!;
      out[to + j] = fround(d * ((pair & 15) | (((high >>> j) & 1) << 4))) + m;
      out[to + 16 + j] = fround(d * ((pair >> 4) | (((high >>> (j + 16)) & 1) << 4))) + m;
    }
  }
};

/** d (f16), 32 signed bytes. value = d · q */
const q8_0: BlockDecoder = (bytes, out, blocks, half) => {
  for (let b = 0, at = 0, to = 0; b < blocks; b++, at += 34, to += 32) {
    const d = half[u16(bytes, at)]!;
    for (let j = 0; j < 32; j++) out[to + j] = d * ((bytes[at + 2 + j]! << 24) >> 24);
  }
};

/**
 * The eight 6-bit scales (and minima) of a Q4_K or Q5_K super-block, packed into 12 bytes: the first four have
 * their bits together; the high two bits of the last four stand above those of the first.
 */
export function unpackScales(bytes: Uint8Array, at: number, scales: Uint8Array, minima: Uint8Array): void {
  for (let j = 0; j < 4; j++) {
    const a = bytes[at + j]!;
    const b = bytes[at + 4 + j]!;
    const c = bytes[at + 8 + j]!;
    scales[j] = a & 63;
    minima[j] = b & 63;
    scales[j + 4] = (c & 15) | ((a >> 6) << 4);
    minima[j + 4] = (c >> 4) | ((b >> 6) << 4);
  }
}

/** d, dmin (f16), 8 scales and minima, 128 bytes of nibbles in runs of 32 + 32. value = d·s · q − dmin·m */
const q4_k: BlockDecoder = (bytes, out, blocks, half) => {
  const scales = new Uint8Array(8);
  const minima = new Uint8Array(8);
  for (let b = 0, at = 0, to = 0; b < blocks; b++, at += 144, to += 256) {
    const d = half[u16(bytes, at)]!;
    const dmin = half[u16(bytes, at + 2)]!;
    unpackScales(bytes, at + 4, scales, minima);
    for (let pair = 0; pair < 4; pair++) {
      const d1 = fround(d * scales[2 * pair]!);
      const m1 = fround(dmin * minima[2 * pair]!);
      const d2 = fround(d * scales[2 * pair + 1]!);
      const m2 = fround(dmin * minima[2 * pair + 1]!);
      const from = at + 16 + 32 * pair;
      const base = to + 64 * pair;
      for (let l = 0; l < 32; l++) {
        const q = bytes[from + l]!;
        out[base + l] = fround(d1 * (q & 15)) - m1;
        out[base + 32 + l] = fround(d2 * (q >> 4)) - m2;
      }
    }
  }
};

/** As Q4_K, with a fifth bit for each value in 32 more bytes. */
const q5_k: BlockDecoder = (bytes, out, blocks, half) => {
  const scales = new Uint8Array(8);
  const minima = new Uint8Array(8);
  for (let b = 0, at = 0, to = 0; b < blocks; b++, at += 176, to += 256) {
    const d = half[u16(bytes, at)]!;
    const dmin = half[u16(bytes, at + 2)]!;
    unpackScales(bytes, at + 4, scales, minima);
    for (let pair = 0; pair < 4; pair++) {
      const d1 = fround(d * scales[2 * pair]!);
      const m1 = fround(dmin * minima[2 * pair]!);
      const d2 = fround(d * scales[2 * pair + 1]!);
      const m2 = fround(dmin * minima[2 * pair + 1]!);
      const from = at + 48 + 32 * pair;
      const base = to + 64 * pair;
      for (let l = 0; l < 32; l++) {
        const q = bytes[from + l]!;
        const high = bytes[at + 16 + l]! >> (2 * pair);
        out[base + l] = fround(d1 * ((q & 15) | ((high & 1) << 4))) - m1;
        out[base + 32 + l] = fround(d2 * ((q >> 4) | ((high & 2) << 3))) - m2;
      }
    }
  }
};

/** 128 bytes of low nibbles, 64 of high bit pairs, 16 signed scales, d (f16). value = d · s · (q − 32) */
const q6_k: BlockDecoder = (bytes, out, blocks, half) => {
  for (let b = 0, at = 0, to = 0; b < blocks; b++, at += 210, to += 256) {
    const d = half[u16(bytes, at + 208)]!;
    for (let part = 0; part < 2; part++) {
      const low = at + 64 * part;
      const high = at + 128 + 32 * part;
      const scale = at + 192 + 8 * part;
      const base = to + 128 * part;
      for (let quarter = 0; quarter < 4; quarter++) {
        const nibbles = low + 32 * (quarter & 1);
        const shift = quarter < 2 ? 0 : 4;
        for (let l = 0; l < 32; l++) {
          const s = (bytes[scale + 2 * quarter + (l >> 4)]! << 24) >> 24;
          const q =
            (((bytes[nibbles + l]! >> shift) & 15) | (((bytes[high + l]! >> (2 * quarter)) & 3) << 4)) - 32;
          out[base + 32 * quarter + l] = fround(d * s) * q;
        }
      }
    }
  }
};

const f32: BlockDecoder = (bytes, out, blocks) => {
  new Uint8Array(out.buffer, out.byteOffset, blocks * 4).set(bytes.subarray(0, blocks * 4));
};

const f16: BlockDecoder = (bytes, out, blocks, half) => {
  for (let i = 0; i < blocks; i++) out[i] = half[u16(bytes, 2 * i)]!;
};

/** bfloat16 is the upper half of a float32. */
const bf16: BlockDecoder = (bytes, out, blocks) => {
  const bits = new Uint32Array(out.buffer, out.byteOffset, blocks);
  for (let i = 0; i < blocks; i++) bits[i] = u16(bytes, 2 * i) << 16;
};

const DECODERS: Readonly<Record<QuantType, BlockDecoder>> = {
  F32: f32,
  F16: f16,
  BF16: bf16,
  Q8_0: q8_0,
  Q4_0: q4_0,
  Q4_1: q4_1,
  Q5_0: q5_0,
  Q5_1: q5_1,
  Q4_K: q4_k,
  Q5_K: q5_k,
  Q6_K: q6_k,
};

/**
 * The values of whole blocks as float32.
 * @param bytes a whole number of blocks of `type`
 */
export function dequantise(type: QuantType, bytes: Uint8Array): Float32Array {
  const { blockSize, blockBytes } = quantLayout(type);
  const blocks = bytes.byteLength / blockBytes;
  const out = new Float32Array(blocks * blockSize);
  DECODERS[type](bytes, out, blocks, halfTable());
  return out;
}

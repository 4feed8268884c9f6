/**
 * IEEE 754 binary16 to and from 32-bit floats.
 *
 * Node 20 has no `Float16Array`, so half-precision tensors travel as the bits of their elements.
 */

const bits = new Uint32Array(1);
const float = new Float32Array(bits.buffer);

/** The value that the 16 bits in `half` stand for; exact for all of them. */
export function float16BitsToNumber(half: number): number {
  const sign = half & 0x8000 ? -1 : 1;
  const exponent = (half >> 10) & 0x1f;
  const mantissa = half & 0x3ff;
  if (exponent === 0) return sign * mantissa * 2 ** -24;
  if (exponent === 31) return mantissa === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return sign * (1 + mantissa / 1024) * 2 ** (exponent - 15);
}

/** The bits of the nearest half-precision number, ties to even; too large a value becomes infinite. */
export function numberToFloat16Bits(value: number): number {
  // Going through binary32 would round twice; Math.fround's error only matters at exact ties of binary16,
  // so the sticky bit of what fround dropped is kept in the lowest mantissa bit.
  float[0] = value;
  let word = bits[0]!;
  const rounded = float[0]!;
  if (Number.isFinite(rounded) && rounded !== value && (word & 1) === 0) {
    word = Math.abs(rounded) < Math.abs(value) ? word | 1 : (word - 1) | 1;
  }
  const sign = (word >>> 16) & 0x8000;
  const magnitude = word & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;
  if (magnitude >= 0x47800000) return sign | 0x7c00;
  if (magnitude < 0x33000000) return sign;
  const exponent = (magnitude >>> 23) - 127;
  const significand = (magnitude & 0x7fffff) | 0x800000;
  // Below 2^-14 the half is subnormal: fewer bits of the significand are left.
  const shift = exponent < -14 ? -exponent - 1 : 13;
  const base = exponent < -14 ? 0 : (exponent + 14) << 10;
  const kept = significand >>> shift;
  const rest = significand & ((1 << shift) - 1);
  const half = 1 << (shift - 1);
  const up = rest > half || (rest === half && (kept & 1) === 1) ? 1 : 0;
  return sign | (base + kept + up);
}

let table: Float32Array | undefined;

/** Converts the bits of half-precision numbers; `target` (of the same length) is written when given. */
export function float16ToFloat32(
  halves: Uint16Array,
  target = new Float32Array(halves.length),
): Float32Array {
  table ??= Float32Array.from({ length: 0x10000 }, (_, half) => float16BitsToNumber(half));
  for (let i = 0; i < halves.length; i++) target[i] = table[halves[i]!]!;
  return target;
}

/** Rounds to half precision, nearest and ties to even; `target` (of the same length) is written when given. */
export function float32ToFloat16(values: Float32Array, target = new Uint16Array(values.length)): Uint16Array {
  for (let i = 0; i < values.length; i++) target[i] = numberToFloat16Bits(values[i]!);
  return target;
}

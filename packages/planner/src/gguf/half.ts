/** IEEE 754 half precision and bfloat16, which Node 20 has no typed arrays for. */

const bits32 = new Uint32Array(1);
const float32 = new Float32Array(bits32.buffer);

/** The float32 that a half-precision bit pattern stands for (exact). */
export function halfToFloat(half: number): number {
  const sign = half & 0x8000 ? -1 : 1;
  const exponent = (half >> 10) & 0x1f;
  const fraction = half & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 0x1f) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

let table: Float32Array | undefined;

/** All 65,536 half-precision values by bit pattern, for loops over many. */
export function halfTable(): Float32Array {
  table ??= Float32Array.from({ length: 65536 }, (_, bits) => halfToFloat(bits));
  return table;
}

/** The nearest half-precision bit pattern, ties to even; beyond ±65504 (rounded) infinity. */
export function floatToHalf(value: number): number {
  float32[0] = value;
  const bits = bits32[0]!;
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;
  // From 65520 on the nearest value would be 65536, which half precision does not have.
  if (magnitude >= 0x477ff000) return sign | 0x7c00;
  if (magnitude < 0x38800000) {
    // Subnormal: units of 2^-24. Scaling by a power of two is exact; then round to even by hand.
    float32[0] = Math.abs(value);
    const scaled = float32[0]! * 2 ** 24;
    const floor = Math.floor(scaled);
    const rest = scaled - floor;
    return sign | (rest > 0.5 || (rest === 0.5 && (floor & 1) === 1) ? floor + 1 : floor);
  }
  const rounded = magnitude - 0x38000000 + 0xfff + ((magnitude >>> 13) & 1);
  return sign | (rounded >>> 13);
}

/**
 * float32 to half precision, element by element. Values beyond the range become the largest finite value, since
 * one infinite weight makes every output NaN.
 */
export function toHalf(values: Float32Array): Uint16Array {
  const out = new Uint16Array(values.length);
  for (let i = 0; i < values.length; i++) {
    const half = floatToHalf(values[i]!);
    out[i] = (half & 0x7fff) === 0x7c00 ? half - 1 : half;
  }
  return out;
}

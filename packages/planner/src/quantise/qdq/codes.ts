/** Widths of the signed integers that a value can be stored in. */
export type CodeBits = 8 | 16;

/** The largest code: codes are symmetric about 0, since the zero point is 0 everywhere. */
export function largestCode(bits: CodeBits): number {
  return 2 ** (bits - 1) - 1;
}

/**
 * How many times what was seen steps leave room for, where nothing is to be cut. Other text is a few percent larger here
 * and there; of 16 bits one is little to lose, of 8 it is much.
 */
export function headroom(bits: CodeBits): 1 | 2 {
  return bits === 16 ? 2 : 1;
}

/**
 * x → round(x / step), halves to the even neighbour, held to what the type can store (`QuantizeLinear` with zero point
 * 0: -128 and -32768 are its least codes).
 */
export function toCodes(values: Float32Array, step: number, bits: CodeBits): Int8Array | Int16Array {
  const codes = bits === 8 ? new Int8Array(values.length) : new Int16Array(values.length);
  const largest = largestCode(bits);
  for (let i = 0; i < values.length; i++) {
    const code = roundHalfEven(Math.fround(values[i]! / step));
    codes[i] = Math.max(-largest - 1, Math.min(largest, code));
  }
  return codes;
}

/** As IEEE 754 rounds, and `QuantizeLinear` does. */
export function roundHalfEven(value: number): number {
  const floor = Math.floor(value);
  const rest = value - floor;
  if (rest !== 0.5) return rest < 0.5 ? floor : floor + 1;
  return floor % 2 === 0 ? floor : floor + 1;
}

/** A matrix in signed bytes with a scale for each output. */
export interface ChannelCodes {
  /** Row-major `[inFeatures, outFeatures]`. */
  readonly codes: Int8Array;
  /** `[outFeatures]`, each above 0. */
  readonly scales: Float32Array;
}

/** Each output's weights to the nearest of 255 steps, the largest of them at ±127. */
export function channelCodes(weight: Float32Array, outFeatures: number): ChannelCodes {
  const largest = largestCode(8);
  const scales = new Float32Array(outFeatures);
  for (let at = 0; at < weight.length; at += outFeatures) {
    for (let column = 0; column < outFeatures; column++) {
      const magnitude = Math.abs(weight[at + column]!);
      if (magnitude > scales[column]!) scales[column] = magnitude;
    }
  }
  // A column of zeros, or of next to nothing, has a scale all the same: it divides.
  for (let column = 0; column < outFeatures; column++) {
    scales[column]! /= largest;
    if (scales[column] === 0) scales[column] = 1;
  }
  const codes = new Int8Array(weight.length);
  for (let at = 0; at < weight.length; at += outFeatures) {
    for (let column = 0; column < outFeatures; column++) {
      // Rounding of the scale itself can put the largest half a code too far, never more.
      codes[at + column] = roundHalfEven(weight[at + column]! / scales[column]!);
    }
  }
  return { codes, scales };
}

/** What codes stand for, row-major `[inFeatures, outFeatures]`. */
export function channelValues({ codes, scales }: ChannelCodes): Float32Array {
  const values = new Float32Array(codes.length);
  for (let at = 0; at < codes.length; at += scales.length) {
    for (let column = 0; column < scales.length; column++) {
      values[at + column] = codes[at + column]! * scales[column]!;
    }
  }
  return values;
}

import { ComputedData, type TensorData } from '../onnx/index.js';
import { elementBytes, encodeFloats, type FloatType } from './float-data.js';
import type { RopeParameters } from './parameters.js';

/**
 * Frequencies of the rotary position embedding, `[dimension / 2]`, in float32 as models are trained with:
 * `base^(-2i/dimension)`, divided by the factors of long-context models where there are any.
 *
 * Source: RoFormer (arXiv 2104.09864), section 3.2.2.
 */
export function rotaryFrequencies(rope: RopeParameters, factors: Float32Array | undefined): Float32Array {
  const out = new Float32Array(rope.dimension / 2);
  for (let i = 0; i < out.length; i++) {
    const frequency = Math.fround(1 / rope.base ** ((2 * i) / rope.dimension));
    out[i] = frequency / (factors?.[i] ?? 1) / rope.positionDivisor;
  }
  return out;
}

/** A table of cosines or sines, `[positions, dimension / 2]`, as `GroupQueryAttention` reads it. */
export function rotaryTable(
  kind: 'cos' | 'sin',
  positions: number,
  frequencies: Float32Array,
  type: FloatType,
): TensorData {
  const width = frequencies.length;
  const wave = kind === 'cos' ? Math.cos : Math.sin;
  return new ComputedData(positions * width * elementBytes(type), () => {
    const out = new Float32Array(positions * width);
    for (let position = 0; position < positions; position++) {
      for (let i = 0; i < width; i++) {
        out[position * width + i] = wave(Math.fround(position * frequencies[i]!));
      }
    }
    return encodeFloats(out, type);
  });
}

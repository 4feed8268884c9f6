import { InferenceError } from '../errors.js';
import { float16ToFloat32, float32ToFloat16 } from './float16.js';
import { type ElementArrays, type ElementType, elementCount, type TensorValue } from './types.js';

/**
 * A tensor of whole numbers, in the integer type that an input asks for.
 * @throws InferenceError `INPUT_TYPE` for a type that holds no integers.
 */
export function integerTensor(
  type: ElementType,
  values: ArrayLike<number>,
  dims: readonly number[],
): TensorValue {
  switch (type) {
    case 'int64':
      return {
        type,
        dims,
        data: BigInt64Array.from({ length: values.length }, (_, i) => BigInt(values[i]!)),
      };
    case 'int32':
      return { type, dims, data: Int32Array.from(values) };
    case 'bool':
      return { type, dims, data: Uint8Array.from(values) };
    case 'float32':
      return { type, dims, data: Float32Array.from(values) };
    case 'float16':
      return { type, dims, data: float32ToFloat16(Float32Array.from(values)) };
    default:
      throw new InferenceError('INPUT_TYPE', 'An input wants a type that token ids and masks never have.', {
        expected: 'int64, int32, bool, float32 or float16',
        found: type,
      });
  }
}

const ZEROS: { [T in ElementType]: (length: number) => ElementArrays[T] } = {
  float32: (n) => new Float32Array(n),
  float64: (n) => new Float64Array(n),
  float16: (n) => new Uint16Array(n),
  int8: (n) => new Int8Array(n),
  uint8: (n) => new Uint8Array(n),
  int16: (n) => new Int16Array(n),
  uint16: (n) => new Uint16Array(n),
  int32: (n) => new Int32Array(n),
  uint32: (n) => new Uint32Array(n),
  int64: (n) => new BigInt64Array(n),
  uint64: (n) => new BigUint64Array(n),
  bool: (n) => new Uint8Array(n),
  int4: (n) => new Int8Array(Math.ceil(n / 2)),
  uint4: (n) => new Uint8Array(Math.ceil(n / 2)),
  string: (n) => Array.from({ length: n }, () => ''),
};

/** A tensor of zeros (or empty strings); dims may contain 0. */
export function zeroTensor(type: ElementType, dims: readonly number[]): TensorValue {
  return { type, dims, data: ZEROS[type](elementCount(dims)) } as TensorValue;
}

/**
 * The elements of a floating-point tensor as 32-bit floats: the same array for float32, a converted copy else.
 * @throws InferenceError `OUTPUT_TYPE` when the tensor is not of a floating-point type.
 */
export function asFloat32(tensor: TensorValue, name = 'tensor'): Float32Array {
  switch (tensor.type) {
    case 'float32':
      return tensor.data;
    case 'float16':
      return float16ToFloat32(tensor.data);
    case 'float64':
      return Float32Array.from(tensor.data);
    default:
      throw new InferenceError('OUTPUT_TYPE', `"${name}" holds no floating-point numbers.`, {
        expected: 'float32, float16 or float64',
        found: tensor.type,
      });
  }
}

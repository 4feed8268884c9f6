/** Element types that ONNX Runtime's JavaScript API can carry, and the array that holds each. */
export interface ElementArrays {
  float32: Float32Array;
  float64: Float64Array;
  /** The bits of IEEE 754 binary16 numbers; see `float16ToFloat32`. */
  float16: Uint16Array;
  int8: Int8Array;
  uint8: Uint8Array;
  int16: Int16Array;
  uint16: Uint16Array;
  int32: Int32Array;
  uint32: Uint32Array;
  int64: BigInt64Array;
  uint64: BigUint64Array;
  /** One byte an element, 0 or 1. */
  bool: Uint8Array;
  /** Two elements a byte, the first in the low half. */
  int4: Int8Array;
  /** Two elements a byte, the first in the low half. */
  uint4: Uint8Array;
  string: string[];
}

export type ElementType = keyof ElementArrays;

/** A tensor in main memory, row-major. */
export type TensorValue = {
  [T in ElementType]: { readonly type: T; readonly dims: readonly number[]; readonly data: ElementArrays[T] };
}[ElementType];

/** A tensor whose elements are of one known type. */
export type TensorOf<T extends ElementType> = Extract<TensorValue, { readonly type: T }>;

/** The number of elements of a tensor with these dimensions; 1 for a scalar. */
export function elementCount(dims: readonly number[]): number {
  return dims.reduce((product, dim) => product * dim, 1);
}

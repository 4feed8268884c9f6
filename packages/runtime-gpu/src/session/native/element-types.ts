import type { ElementArrays, ElementType } from '../../tensor/types.js';

/** Element types without strings, whose elements are not plain memory. */
export type PlainType = Exclude<ElementType, 'string'>;

interface Storage {
  /** `ONNXTensorElementDataType`. */
  readonly code: number;
  readonly array: new (buffer: ArrayBuffer, byteOffset: number, length: number) => ElementArrays[PlainType];
  readonly bytes: number;
  /** Elements that share one entry of the array. */
  readonly packed: number;
}

const STORAGE: Readonly<Record<PlainType, Storage>> = {
  float32: { code: 1, array: Float32Array, bytes: 4, packed: 1 },
  uint8: { code: 2, array: Uint8Array, bytes: 1, packed: 1 },
  int8: { code: 3, array: Int8Array, bytes: 1, packed: 1 },
  uint16: { code: 4, array: Uint16Array, bytes: 2, packed: 1 },
  int16: { code: 5, array: Int16Array, bytes: 2, packed: 1 },
  int32: { code: 6, array: Int32Array, bytes: 4, packed: 1 },
  int64: { code: 7, array: BigInt64Array, bytes: 8, packed: 1 },
  bool: { code: 9, array: Uint8Array, bytes: 1, packed: 1 },
  float16: { code: 10, array: Uint16Array, bytes: 2, packed: 1 },
  float64: { code: 11, array: Float64Array, bytes: 8, packed: 1 },
  uint32: { code: 12, array: Uint32Array, bytes: 4, packed: 1 },
  uint64: { code: 13, array: BigUint64Array, bytes: 8, packed: 1 },
  uint4: { code: 21, array: Uint8Array, bytes: 1, packed: 2 },
  int4: { code: 22, array: Int8Array, bytes: 1, packed: 2 },
};

const BY_CODE = new Map(Object.entries(STORAGE).map(([type, { code }]) => [code, type as PlainType]));

/** `ONNXTensorElementDataType` of a type. */
export function elementCode(type: PlainType): number {
  return STORAGE[type].code;
}

/** The type by its `ONNXTensorElementDataType`; `undefined` for strings and types that JavaScript cannot hold. */
export function plainType(code: number): PlainType | undefined {
  return BY_CODE.get(code);
}

/** Entries of the array that hold so many elements. */
export function arrayLength(type: PlainType, elements: number): number {
  return Math.ceil(elements / STORAGE[type].packed);
}

/** The elements in `buffer`, or in a part of it, shared with it. */
export function arrayOver<T extends PlainType>(
  type: T,
  buffer: ArrayBuffer,
  byteOffset = 0,
  byteLength = buffer.byteLength - byteOffset,
): ElementArrays[T] {
  const { array: Elements, bytes } = STORAGE[type];
  return new Elements(buffer, byteOffset, byteLength / bytes) as ElementArrays[T];
}

/** Bytes of a tensor with so many elements. */
export function byteLength(type: PlainType, elements: number): number {
  return arrayLength(type, elements) * STORAGE[type].bytes;
}

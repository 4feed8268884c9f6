import { ModelFormatError } from '@cqil/core';

/** `TensorProto.DataType` of the ONNX IR specification. */
export const DataType = {
  UNDEFINED: 0,
  FLOAT: 1,
  UINT8: 2,
  INT8: 3,
  UINT16: 4,
  INT16: 5,
  INT32: 6,
  INT64: 7,
  STRING: 8,
  BOOL: 9,
  FLOAT16: 10,
  DOUBLE: 11,
  UINT32: 12,
  UINT64: 13,
  COMPLEX64: 14,
  COMPLEX128: 15,
  BFLOAT16: 16,
  FLOAT8E4M3FN: 17,
  FLOAT8E4M3FNUZ: 18,
  FLOAT8E5M2: 19,
  FLOAT8E5M2FNUZ: 20,
  UINT4: 21,
  INT4: 22,
  FLOAT4E2M1: 23,
  FLOAT8E8M0: 24,
  UINT2: 25,
  INT2: 26,
} as const;

const BITS: Readonly<Record<number, number>> = {
  [DataType.FLOAT]: 32,
  [DataType.UINT8]: 8,
  [DataType.INT8]: 8,
  [DataType.UINT16]: 16,
  [DataType.INT16]: 16,
  [DataType.INT32]: 32,
  [DataType.INT64]: 64,
  [DataType.BOOL]: 8,
  [DataType.FLOAT16]: 16,
  [DataType.DOUBLE]: 64,
  [DataType.UINT32]: 32,
  [DataType.UINT64]: 64,
  [DataType.COMPLEX64]: 64,
  [DataType.COMPLEX128]: 128,
  [DataType.BFLOAT16]: 16,
  [DataType.FLOAT8E4M3FN]: 8,
  [DataType.FLOAT8E4M3FNUZ]: 8,
  [DataType.FLOAT8E5M2]: 8,
  [DataType.FLOAT8E5M2FNUZ]: 8,
  [DataType.UINT4]: 4,
  [DataType.INT4]: 4,
  [DataType.FLOAT4E2M1]: 4,
  [DataType.FLOAT8E8M0]: 8,
  [DataType.UINT2]: 2,
  [DataType.INT2]: 2,
};

const NAMES: Readonly<Record<number, string>> = Object.fromEntries(
  Object.entries(DataType).map(([name, value]) => [value, name]),
);

/** The specification's name of a data type, or `type 99` for one that this version does not know. */
export function dataTypeName(type: number): string {
  return NAMES[type] ?? `type ${type}`;
}

/** Bits an element takes, or `undefined` for strings and for types that this version does not know. */
export function bitsPerElement(type: number): number | undefined {
  return BITS[type];
}

/** The element types that activations can have. */
export function isFloatType(type: number): boolean {
  return (
    type === DataType.FLOAT ||
    type === DataType.FLOAT16 ||
    type === DataType.BFLOAT16 ||
    type === DataType.DOUBLE
  );
}

/**
 * Bytes that a tensor of this type and shape takes in raw form.
 * @throws ModelFormatError `ONNX_TENSOR_SHAPE` for negative or impossibly large dimensions.
 */
export function rawByteLength(name: string, type: number, dims: readonly bigint[]): number | undefined {
  let elements = 1n;
  for (const dim of dims) {
    if (dim < 0n) throw badShape(name, dims, 'dimensions of 0 or more');
    elements *= dim;
  }
  const bits = bitsPerElement(type);
  if (bits === undefined) return undefined;
  const bytes = (elements * BigInt(bits) + 7n) / 8n;
  if (bytes > BigInt(Number.MAX_SAFE_INTEGER)) throw badShape(name, dims, 'a tensor that fits a file');
  return Number(bytes);
}

function badShape(name: string, dims: readonly bigint[], expected: string): ModelFormatError {
  return new ModelFormatError('ONNX_TENSOR_SHAPE', `The shape of tensor "${name}" makes no sense.`, {
    expected,
    found: `[${dims.join(', ')}]`,
    hint: 'The file is damaged or was not made by an ONNX exporter; fetch or export it again.',
  });
}

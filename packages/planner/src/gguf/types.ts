/**
 * The value and tensor types of the GGUF container.
 *
 * Source: the GGUF specification (`docs/gguf.md`) and the block layouts of the ggml library.
 */

/** Type ids of metadata values. */
export const ValueType = {
  UINT8: 0,
  INT8: 1,
  UINT16: 2,
  INT16: 3,
  UINT32: 4,
  INT32: 5,
  FLOAT32: 6,
  BOOL: 7,
  STRING: 8,
  ARRAY: 9,
  UINT64: 10,
  INT64: 11,
  FLOAT64: 12,
} as const;

/** How values of a tensor type are stored: `blockBytes` bytes for every `blockSize` neighbouring values. */
export interface TensorTypeLayout {
  readonly name: string;
  readonly blockSize: number;
  readonly blockBytes: number;
}

const layout = (name: string, blockSize: number, blockBytes: number): TensorTypeLayout => ({
  name,
  blockSize,
  blockBytes,
});

/**
 * Every tensor type id in use. Sizes of types that cannot be imported are listed too, since the reader checks
 * the bounds of all tensors, and an error should call a type by its name.
 */
export const TENSOR_TYPES: ReadonlyMap<number, TensorTypeLayout> = new Map([
  [0, layout('F32', 1, 4)],
  [1, layout('F16', 1, 2)],
  [2, layout('Q4_0', 32, 18)],
  [3, layout('Q4_1', 32, 20)],
  [6, layout('Q5_0', 32, 22)],
  [7, layout('Q5_1', 32, 24)],
  [8, layout('Q8_0', 32, 34)],
  [9, layout('Q8_1', 32, 36)],
  [10, layout('Q2_K', 256, 84)],
  [11, layout('Q3_K', 256, 110)],
  [12, layout('Q4_K', 256, 144)],
  [13, layout('Q5_K', 256, 176)],
  [14, layout('Q6_K', 256, 210)],
  [15, layout('Q8_K', 256, 292)],
  [16, layout('IQ2_XXS', 256, 66)],
  [17, layout('IQ2_XS', 256, 74)],
  [18, layout('IQ3_XXS', 256, 98)],
  [19, layout('IQ1_S', 256, 50)],
  [20, layout('IQ4_NL', 32, 18)],
  [21, layout('IQ3_S', 256, 110)],
  [22, layout('IQ2_S', 256, 82)],
  [23, layout('IQ4_XS', 256, 136)],
  [24, layout('I8', 1, 1)],
  [25, layout('I16', 1, 2)],
  [26, layout('I32', 1, 4)],
  [27, layout('I64', 1, 8)],
  [28, layout('F64', 1, 8)],
  [29, layout('IQ1_M', 256, 56)],
  [30, layout('BF16', 1, 2)],
  [34, layout('TQ1_0', 256, 54)],
  [35, layout('TQ2_0', 256, 66)],
  [39, layout('MXFP4', 32, 17)],
]);

/** The tensor types that can be turned into numbers here. */
export const QUANT_TYPES = [
  'F32',
  'F16',
  'BF16',
  'Q8_0',
  'Q4_0',
  'Q4_1',
  'Q5_0',
  'Q5_1',
  'Q4_K',
  'Q5_K',
  'Q6_K',
] as const;

export type QuantType = (typeof QUANT_TYPES)[number];

export function isQuantType(name: string): name is QuantType {
  return (QUANT_TYPES as readonly string[]).includes(name);
}

const BY_NAME = new Map([...TENSOR_TYPES].map(([id, type]) => [type.name, { id, ...type }]));

/** Id and layout of a type by its name. */
export function quantLayout(name: QuantType): TensorTypeLayout & { readonly id: number } {
  return BY_NAME.get(name)!;
}

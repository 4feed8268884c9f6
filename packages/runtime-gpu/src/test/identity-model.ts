/** `ONNXTensorElementDataType` numbers are those of ONNX's own TensorProto.DataType for the types used here. */
export interface IdentityValue {
  readonly name: string;
  /** TensorProto.DataType. */
  readonly code: number;
  readonly shape: readonly (number | string)[];
}

/**
 * The bytes of an ONNX model whose outputs `out.NAME` are its inputs `NAME`, written field by field as ONNX's schema
 * (onnx.proto) numbers them: tests need a model of every element type, and the repository holds none.
 */
export function identityModel(values: readonly IdentityValue[]): Uint8Array {
  const graph = [
    ...values.map(({ name }) =>
      message(1, [
        ...text(1, name),
        ...text(2, `out.${name}`),
        ...text(3, `n.${name}`),
        ...text(4, 'Identity'),
      ]),
    ),
    text(2, 'identity'),
    ...values.map((value) => message(11, valueInfo(value, value.name))),
    ...values.map((value) => message(12, valueInfo(value, `out.${value.name}`))),
  ].flat();
  const opset = message(8, [...text(1, ''), ...number(2, 21)]);
  return Uint8Array.from([...number(1, 10), ...message(7, graph), ...opset]);
}

function valueInfo({ code, shape }: IdentityValue, name: string): number[] {
  const dims = shape.flatMap((dim) => message(1, typeof dim === 'number' ? number(1, dim) : text(2, dim)));
  const tensor = message(1, [...number(1, code), ...message(2, dims)]);
  return [...text(1, name), ...message(2, tensor)];
}

function varint(value: number): number[] {
  return value < 0x80 ? [value] : [(value & 0x7f) | 0x80, ...varint(value >>> 7)];
}

function number(field: number, value: number): number[] {
  return [...varint(field << 3), ...varint(value)];
}

function message(field: number, body: readonly number[]): number[] {
  return [...varint((field << 3) | 2), ...varint(body.length), ...body];
}

function text(field: number, value: string): number[] {
  return message(field, [...Buffer.from(value)]);
}

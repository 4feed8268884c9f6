import { clearField, create, toBinary } from '@bufbuild/protobuf';
import { ModelFormatError } from '@cqil/core';
import { bitsPerElement, DataType, dataTypeName, rawByteLength } from './data-types.js';
import { type AttributeProto, type TensorProto, TensorProtoSchema } from './gen/onnx_pb.js';
import { InlineData, type TensorData } from './tensor-data.js';

/**
 * The field of `TensorProto` that the bytes were found in. `float_data` and `double_data` are packed
 * little-endian on the wire, so they are raw bytes under another field number.
 */
export type PayloadField = 'raw_data' | 'float_data' | 'double_data' | 'external';

/** What a tensor holds besides its header. Immutable: a changed tensor is a new one. */
export class Tensor {
  /** Name, shape, type and every field this version does not know; never the bytes in `data`. */
  readonly header: TensorProto;
  /** The values, or `undefined` where they stand in a typed field of the header (small tensors, strings). */
  readonly data: TensorData | undefined;
  readonly field: PayloadField | undefined;
  /** For `external`: the file's location relative to the model, as the source gave it. */
  readonly location: string | undefined;

  private constructor(
    header: TensorProto,
    data: TensorData | undefined,
    field: PayloadField | undefined,
    location: string | undefined,
  ) {
    this.header = header;
    this.data = data;
    this.field = field;
    this.location = location;
  }

  /** @internal for the reader: a header with the payload taken out of it. */
  static fromWire(
    header: TensorProto,
    payload?: { data: TensorData; field: PayloadField; location?: string },
  ): Tensor {
    return new Tensor(header, payload?.data, payload?.field, payload?.location);
  }

  /**
   * A new tensor from raw little-endian bytes or from data that is made when it is written.
   * @throws ModelFormatError `TENSOR_DATA_LENGTH` when size and shape disagree.
   */
  static create(
    name: string,
    dataType: number,
    dims: readonly number[],
    data: ArrayBufferView | TensorData,
  ): Tensor {
    const payload: TensorData = ArrayBuffer.isView(data)
      ? new InlineData(new Uint8Array(data.buffer, data.byteOffset, data.byteLength))
      : data;
    const header = create(TensorProtoSchema, { name, dataType, dims: dims.map(BigInt) });
    const expected = rawByteLength(name, dataType, header.dims);
    if (expected !== undefined && expected !== payload.byteLength) {
      throw new ModelFormatError('TENSOR_DATA_LENGTH', `Tensor "${name}" has the wrong number of bytes.`, {
        expected: `${expected} bytes for ${dataTypeName(dataType)} [${dims.join(', ')}]`,
        found: `${payload.byteLength} bytes`,
      });
    }
    return new Tensor(header, payload, 'raw_data', undefined);
  }

  get name(): string {
    return this.header.name;
  }

  get dataType(): number {
    return this.header.dataType;
  }

  get dims(): number[] {
    return this.header.dims.map(Number);
  }

  get elementCount(): number {
    return this.dims.reduce((a, b) => a * b, 1);
  }

  /** Bytes of the values in raw form, whichever field holds them. */
  get byteLength(): number {
    return (
      this.data?.byteLength ??
      rawByteLength(this.name, this.dataType, this.header.dims) ??
      typedBytes(this.header)
    );
  }

  /** The same values under another name. */
  renamed(name: string): Tensor {
    const header = cloneHeader(this.header);
    header.name = name;
    return new Tensor(header, this.data, this.field, this.location);
  }

  /**
   * All values as raw little-endian bytes, converted from typed fields where they stand there.
   * @throws ModelFormatError `ONNX_TENSOR_TYPE` for strings.
   */
  async bytes(): Promise<Uint8Array> {
    if (this.data !== undefined) return this.data.read();
    return typedFieldBytes(this.header);
  }
}

function typedBytes(header: TensorProto): number {
  return toBinary(TensorProtoSchema, header).byteLength;
}

/** A shallow copy: repeated fields are shared, since nobody changes them in place. */
export function cloneHeader(header: TensorProto): TensorProto {
  const copy = create(TensorProtoSchema);
  return Object.assign(copy, header);
}

/** Which bytes belong to an attribute's tensor that was too large to be kept in the node. */
const attributePayloads = new WeakMap<TensorProto, Tensor>();

/** @internal for the reader. */
export function setAttributeTensor(proto: TensorProto, tensor: Tensor): void {
  attributePayloads.set(proto, tensor);
}

/** The tensor of a `t` attribute, its bytes on disk or in memory. */
export function attributeTensor(attribute: AttributeProto): Tensor | undefined {
  const proto = attribute.t;
  if (proto === undefined) return undefined;
  return attributePayloads.get(proto) ?? inlineTensor(proto);
}

/** Whether the bytes of an attribute's tensor are not in the node itself. */
export function detachedTensor(proto: TensorProto): Tensor | undefined {
  return attributePayloads.get(proto);
}

/** A tensor whose values are all in its protobuf message. */
export function inlineTensor(proto: TensorProto): Tensor {
  if (proto.rawData.byteLength === 0) return Tensor.fromWire(proto);
  const header = cloneHeader(proto);
  clearField(header, TensorProtoSchema.field.rawData);
  return Tensor.fromWire(header, { data: new InlineData(proto.rawData), field: 'raw_data' });
}

function typedFieldBytes(header: TensorProto): Uint8Array {
  const { dataType: type } = header;
  const count = header.dims.reduce((a, b) => a * b, 1n);
  const values: ArrayBufferView | undefined = typedValues(header);
  if (values === undefined) {
    if (count === 0n) return new Uint8Array(0);
    throw new ModelFormatError('ONNX_TENSOR_TYPE', `Tensor "${header.name}" has no numeric values.`, {
      expected: 'a numeric tensor with values',
      found: dataTypeName(type),
    });
  }
  const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  const expected = rawByteLength(header.name, type, header.dims);
  if (expected !== bytes.byteLength) {
    throw new ModelFormatError(
      'TENSOR_DATA_LENGTH',
      `Tensor "${header.name}" has the wrong number of values.`,
      {
        expected: `${expected} bytes`,
        found: `${bytes.byteLength} bytes`,
        hint: 'The file is damaged; fetch or export it again.',
      },
    );
  }
  return bytes;
}

function typedValues(header: TensorProto): ArrayBufferView | undefined {
  const { dataType: type } = header;
  if (header.floatData.length > 0) return Float32Array.from(header.floatData);
  if (header.doubleData.length > 0) return Float64Array.from(header.doubleData);
  if (header.int64Data.length > 0) return BigInt64Array.from(header.int64Data);
  if (header.uint64Data.length > 0) {
    return type === DataType.UINT32
      ? Uint32Array.from(header.uint64Data, Number)
      : BigUint64Array.from(header.uint64Data);
  }
  if (header.int32Data.length === 0) return undefined;
  switch (bitsPerElement(type)) {
    case 32:
      return Int32Array.from(header.int32Data);
    case 16:
      return Uint16Array.from(header.int32Data, (v) => v & 0xffff);
    default:
      // 8-bit values one an entry; 4-bit values come packed in pairs, one pair an entry.
      return Uint8Array.from(header.int32Data, (v) => v & 0xff);
  }
}

import { create } from '@bufbuild/protobuf';
import { ModelFormatError } from '@cqil/core';
import {
  type AttributeProto,
  AttributeProtoSchema,
  NodeProtoSchema,
  type TensorProto,
  TensorProtoSchema,
  TensorShapeProto_DimensionSchema,
  TensorShapeProtoSchema,
  TypeProto_TensorSchema,
  TypeProtoSchema,
  ValueInfoProtoSchema,
} from './gen/onnx_pb.js';
import type { Attribute, Node, ValueInfo } from './model.js';

/** `AttributeProto.AttributeType` */
export const AttributeType = {
  FLOAT: 1,
  INT: 2,
  STRING: 3,
  TENSOR: 4,
  GRAPH: 5,
  FLOATS: 6,
  INTS: 7,
  STRINGS: 8,
} as const;

/** A value for an attribute, tagged since JavaScript does not tell 1 from 1.0. */
export type AttributeValue =
  | { readonly int: number }
  | { readonly float: number }
  | { readonly string: string }
  | { readonly ints: readonly number[] }
  | { readonly floats: readonly number[] }
  | { readonly tensor: TensorProto };

const encoder = new TextEncoder();
const decoder = new TextDecoder();

function makeAttribute(name: string, value: AttributeValue): AttributeProto {
  if ('int' in value) {
    return create(AttributeProtoSchema, { name, i: BigInt(value.int), type: AttributeType.INT });
  }
  if ('float' in value)
    return create(AttributeProtoSchema, { name, f: value.float, type: AttributeType.FLOAT });
  if ('string' in value) {
    return create(AttributeProtoSchema, {
      name,
      s: encoder.encode(value.string),
      type: AttributeType.STRING,
    });
  }
  if ('ints' in value) {
    return create(AttributeProtoSchema, { name, ints: value.ints.map(BigInt), type: AttributeType.INTS });
  }
  if ('floats' in value) {
    return create(AttributeProtoSchema, { name, floats: [...value.floats], type: AttributeType.FLOATS });
  }
  return create(AttributeProtoSchema, { name, t: value.tensor, type: AttributeType.TENSOR });
}

export interface NodeOptions {
  /** Shown by viewers such as Netron. */
  readonly name: string;
  /** `com.microsoft` for ONNX Runtime's own operators. */
  readonly domain?: string;
  readonly attributes?: Readonly<Record<string, AttributeValue>>;
}

/** A new node. Optional inputs and outputs that are left out are empty strings. */
export function makeNode(
  opType: string,
  inputs: readonly string[],
  outputs: readonly string[],
  options: NodeOptions,
): Node {
  const node = create(NodeProtoSchema, {
    opType,
    input: [...inputs],
    output: [...outputs],
    name: options.name,
    attribute: Object.entries(options.attributes ?? {}).map(([key, value]) => makeAttribute(key, value)),
  });
  if (options.domain !== undefined) node.domain = options.domain;
  return node;
}

/** A graph input or output. A dimension is a number, or a name for one that differs from run to run. */
export function makeValueInfo(
  name: string,
  dataType: number,
  shape: readonly (number | string)[],
): ValueInfo {
  const dim = shape.map((size) =>
    create(TensorShapeProto_DimensionSchema, {
      value:
        typeof size === 'number'
          ? { case: 'dimValue', value: BigInt(size) }
          : { case: 'dimParam', value: size },
    }),
  );
  const tensor = create(TypeProto_TensorSchema, {
    elemType: dataType,
    shape: create(TensorShapeProtoSchema, { dim }),
  });
  return create(ValueInfoProtoSchema, {
    name,
    type: create(TypeProtoSchema, { value: { case: 'tensorType', value: tensor } }),
  });
}

/** A tensor for an attribute: its bytes stand in the message itself. */
export function makeAttributeTensor(
  name: string,
  dataType: number,
  dims: readonly number[],
  data: ArrayBufferView,
): TensorProto {
  return create(TensorProtoSchema, {
    name,
    dataType,
    dims: dims.map(BigInt),
    rawData: new Uint8Array(data.buffer, data.byteOffset, data.byteLength),
  });
}

/** Element type of a tensor-typed value, or `undefined` for other types. */
export function elementType(info: ValueInfo): number | undefined {
  const value = info.type?.value;
  return value?.case === 'tensorType' ? value.value.elemType : undefined;
}

/** Shape of a tensor-typed value: numbers, names, or `undefined` for an unnamed unknown; `undefined` without a rank. */
export function shapeOf(info: ValueInfo): (number | string | undefined)[] | undefined {
  const value = info.type?.value;
  if (value?.case !== 'tensorType' || value.value.shape === undefined) return undefined;
  return value.value.shape.dim.map((dim) => {
    if (dim.value.case === 'dimValue') return Number(dim.value.value);
    return dim.value.case === 'dimParam' && dim.value.value !== '' ? dim.value.value : undefined;
  });
}

function find(node: Node, name: string): Attribute | undefined {
  return node.attribute.find((attribute) => attribute.name === name);
}

export function intAttribute(node: Node, name: string): number | undefined {
  const attribute = find(node, name);
  return attribute === undefined ? undefined : Number(attribute.i);
}

export function floatAttribute(node: Node, name: string): number | undefined {
  return find(node, name)?.f;
}

export function stringAttribute(node: Node, name: string): string | undefined {
  const attribute = find(node, name);
  return attribute === undefined ? undefined : decoder.decode(attribute.s);
}

export function tensorAttribute(node: Node, name: string): Attribute | undefined {
  const attribute = find(node, name);
  return attribute?.t === undefined ? undefined : attribute;
}

/** Sets or replaces an attribute; the node's list is changed, shared attribute messages are not. */
export function setAttribute(node: Node, name: string, value: AttributeValue): void {
  if (name === '') throw new ModelFormatError('ONNX_ATTRIBUTE', 'An attribute needs a name.');
  const index = node.attribute.findIndex((attribute) => attribute.name === name);
  const made = makeAttribute(name, value);
  if (index === -1) node.attribute.push(made);
  else node.attribute[index] = made;
}

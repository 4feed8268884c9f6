import { open, stat } from 'node:fs/promises';
import path from 'node:path';
import { clearField, create, fromBinary } from '@bufbuild/protobuf';
import { CqilError, ModelFormatError } from '@cqil/core';
import { rawByteLength } from './data-types.js';
import { EXTERNAL, ExternalDataResolver } from './external-data.js';
import {
  type GraphProto,
  GraphProtoSchema,
  type ModelProto,
  ModelProtoSchema,
  type TensorProto,
  TensorProtoSchema,
} from './gen/onnx_pb.js';
import { Graph, Model } from './model.js';
import { cloneHeader, setAttributeTensor, Tensor } from './tensor.js';
import { FileRange, InlineData } from './tensor-data.js';
import { type LeftOut, type Skeleton, scanModelFile } from './wire-scan.js';

/**
 * Reads an ONNX model. The bytes of its large tensors stay on disk, inside the file or in external data, until
 * somebody asks for them; what is checked at once is that they are there and have the size their shape says.
 *
 * @throws ModelFormatError with a code that starts with `ONNX_`, `EXTERNAL_DATA_` or `TENSOR_DATA_`
 */
export async function readModel(file: string): Promise<Model> {
  const absolute = path.resolve(file);
  const skeleton = await scan(absolute);
  const proto = decode(skeleton, absolute);
  if (proto.graph === undefined) {
    throw new ModelFormatError('ONNX_NO_GRAPH', `${absolute} holds no graph.`, {
      expected: 'an ONNX ModelProto with a graph',
      found: 'none',
      hint: 'Give the .onnx file of a language model.',
    });
  }
  const graph = await buildGraph(proto.graph, skeleton, absolute);
  const rest = Object.assign(create(ModelProtoSchema), proto);
  clearField(rest, ModelProtoSchema.field.graph);
  return new Model(rest, graph, absolute);
}

async function scan(file: string): Promise<Skeleton> {
  let size: number;
  try {
    const info = await stat(file);
    if (!info.isFile()) throw new Error('not a file');
    size = info.size;
  } catch (cause) {
    throw new ModelFormatError('ONNX_FILE_MISSING', `There is no model file ${file}.`, {
      expected: 'an .onnx file',
      found: 'nothing that can be read under this name',
      cause,
    });
  }
  if (size === 0) {
    throw new ModelFormatError('ONNX_TRUNCATED', `${file} is empty.`, {
      expected: 'an ONNX model',
      found: '0 bytes',
      hint: 'Fetch or export the model again.',
    });
  }
  const handle = await open(file, 'r');
  try {
    return await scanModelFile(handle, size);
  } finally {
    await handle.close();
  }
}

function decode(skeleton: Skeleton, file: string): ModelProto {
  try {
    return fromBinary(ModelProtoSchema, skeleton.bytes);
  } catch (cause) {
    if (cause instanceof CqilError) throw cause;
    throw new ModelFormatError('ONNX_NOT_PROTOBUF', `${file} is not an ONNX file, or it is damaged.`, {
      expected: 'the protobuf encoding of an ONNX ModelProto',
      found: cause instanceof Error ? cause.message : String(cause),
      hint: 'Give an .onnx file; if it is one, fetch or export it again.',
      cause,
    });
  }
}

async function buildGraph(proto: GraphProto, skeleton: Skeleton, file: string): Promise<Graph> {
  const external = new ExternalDataResolver(file);
  const initializers = new Map<string, Tensor>();
  for (const [index, header] of proto.initializer.entries()) {
    if (header.name === '' || initializers.has(header.name)) {
      throw new ModelFormatError(
        'ONNX_DUPLICATE_NAME',
        `${file} has two weights of one name, or one without.`,
        {
          expected: 'one initialiser a name',
          found: JSON.stringify(header.name),
          hint: 'The file is damaged; fetch or export it again.',
        },
      );
    }
    initializers.set(
      header.name,
      await readTensor(header, skeleton.leftOut.get(`i:${index}`), file, external),
    );
  }
  for (const [nodeIndex, node] of proto.node.entries()) {
    for (const [index, attribute] of node.attribute.entries()) {
      if (attribute.t === undefined) continue;
      const leftOut = skeleton.leftOut.get(`n:${nodeIndex}:${index}`);
      if (leftOut === undefined && attribute.t.dataLocation !== EXTERNAL) continue;
      setAttributeTensor(attribute.t, await readTensor(attribute.t, leftOut, file, external));
    }
  }
  const rest = Object.assign(create(GraphProtoSchema), proto);
  rest.node = [];
  rest.initializer = [];
  rest.input = [];
  rest.output = [];
  rest.valueInfo = [];
  const graph = new Graph({
    rest,
    nodes: proto.node,
    initializers,
    inputs: proto.input,
    outputs: proto.output,
    valueInfo: proto.valueInfo,
  });
  assertUniqueValues(graph, file);
  return graph;
}

async function readTensor(
  proto: TensorProto,
  leftOut: LeftOut | undefined,
  file: string,
  external: ExternalDataResolver,
): Promise<Tensor> {
  const header = cloneHeader(proto);
  if (proto.dataLocation === EXTERNAL) {
    const { data, location } = await external.resolve(proto);
    header.externalData = proto.externalData.filter(({ key }) => !EXTERNAL_KEYS.has(key));
    clearField(header, TensorProtoSchema.field.dataLocation);
    return Tensor.fromWire(header, { data, field: 'external', location });
  }
  const expected = rawByteLength(proto.name, proto.dataType, proto.dims);
  const found = leftOut?.length ?? (proto.rawData.byteLength > 0 ? proto.rawData.byteLength : undefined);
  if (expected !== undefined && found !== undefined && found !== expected) {
    throw new ModelFormatError(
      'TENSOR_DATA_LENGTH',
      `Tensor "${proto.name}" has the wrong number of bytes.`,
      {
        expected: `${expected} bytes for its shape [${proto.dims.join(', ')}]`,
        found: `${found} bytes`,
        hint: 'The file is damaged; fetch or export it again.',
      },
    );
  }
  if (leftOut !== undefined) {
    return Tensor.fromWire(header, {
      data: new FileRange(file, leftOut.offset, leftOut.length),
      field: leftOut.field,
    });
  }
  if (proto.rawData.byteLength > 0) {
    clearField(header, TensorProtoSchema.field.rawData);
    return Tensor.fromWire(header, { data: new InlineData(proto.rawData), field: 'raw_data' });
  }
  return Tensor.fromWire(header);
}

/** What the writer says anew. A checksum, which few exporters give, would be of the old layout. */
const EXTERNAL_KEYS = new Set(['location', 'offset', 'length', 'checksum']);

function assertUniqueValues(graph: Graph, file: string): void {
  const seen = new Set<string>(graph.feeds.map((input) => input.name));
  for (const name of graph.initializers.keys()) seen.add(name);
  for (const node of graph.nodes) {
    for (const output of node.output) {
      if (output === '') continue;
      if (seen.has(output)) {
        throw new ModelFormatError('ONNX_DUPLICATE_NAME', `${file} makes one value twice.`, {
          expected: 'every value made by one node',
          found: `"${output}" again, by ${node.opType} "${node.name}"`,
          hint: 'The file is damaged; fetch or export it again.',
        });
      }
      seen.add(output);
    }
  }
}

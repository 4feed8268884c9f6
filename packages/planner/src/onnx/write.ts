import { randomBytes } from 'node:crypto';
import { type FileHandle, mkdir, open, rename, rm } from 'node:fs/promises';
import path from 'node:path';
import { clearField, create, type DescMessage, type MessageShape, toBinary } from '@bufbuild/protobuf';
import { EnvironmentError, ModelFormatError, type OnProgress } from '@cqil/core';
import { assertSafeLocation, EXTERNAL } from './external-data.js';
import {
  AttributeProtoSchema,
  GraphProtoSchema,
  ModelProtoSchema,
  NodeProtoSchema,
  StringStringEntryProtoSchema,
  type TensorProto,
  TensorProtoSchema,
} from './gen/onnx_pb.js';
import type { Attribute, Model, Node } from './model.js';
import { cloneHeader, detachedTensor, type Tensor } from './tensor.js';
import { FileRange, type TensorData } from './tensor-data.js';
import { varint } from './wire-scan.js';

/** Where weights go. */
export type ExternalDataPolicy =
  /** As in the source: inside the file what was inside, in external files of the same names what was there. */
  | 'preserve'
  /** All inside the file; only for models below 2 GB. */
  | 'inline'
  /** Tensors of at least `threshold` bytes (1,024 when absent) into one file of this name beside the model. */
  | { readonly location: string; readonly threshold?: number };

export interface WriteOptions {
  readonly external?: ExternalDataPolicy;
  readonly signal?: AbortSignal;
  readonly onProgress?: OnProgress;
}

/** Protobuf's own limit. */
const MESSAGE_LIMIT = 2 ** 31 - 1;
/** Alignment of tensors in a data file, so that a loader can map them (ONNX external data specification). */
const ALIGNMENT = 4096;
const DEFAULT_THRESHOLD = 1024;

/**
 * Writes a model, one tensor in memory at a time, under temporary names that become the final ones when
 * everything is there. Equal models give equal bytes.
 *
 * @returns the files written, the model first
 * @throws ModelFormatError `ONNX_OVER_2GB`; EnvironmentError `WRITE_FAILED`; the signal's reason
 */
export async function writeModel(model: Model, file: string, options: WriteOptions = {}): Promise<string[]> {
  const target = path.resolve(file);
  const staging = new Staging();
  try {
    await mkdir(path.dirname(target), { recursive: true });
    const layout = planLayout(model, target, options.external ?? 'preserve');
    await writeExternal(layout, target, staging, options);
    await writeProto(model, layout, target, staging, options);
    return await staging.commit();
  } catch (cause) {
    await staging.discard();
    if (isSystemError(cause)) {
      throw new EnvironmentError('WRITE_FAILED', `Could not write ${target}: ${cause.message}`, {
        hint: cause.code === 'ENOSPC' ? 'Make room on the disk.' : 'Check that the folder can be written.',
        cause,
      });
    }
    throw cause;
  }
}

/** Files under temporary names, renamed together in the end: data first, the model that refers to it last. */
class Staging {
  readonly #files: { temporary: string; final: string }[] = [];
  readonly #open = new Set<FileHandle>();

  async create(final: string): Promise<FileHandle> {
    const temporary = `${final}.${process.pid}-${randomBytes(4).toString('hex')}.tmp`;
    await mkdir(path.dirname(final), { recursive: true });
    const handle = await open(temporary, 'wx');
    this.#open.add(handle);
    this.#files.push({ temporary, final });
    return handle;
  }

  async close(handle: FileHandle): Promise<void> {
    this.#open.delete(handle);
    await handle.close();
  }

  async commit(): Promise<string[]> {
    for (const { temporary, final } of this.#files) await rename(temporary, final);
    return this.#files.map(({ final }) => final).reverse();
  }

  async discard(): Promise<void> {
    for (const handle of this.#open) await handle.close().catch(() => undefined);
    for (const { temporary } of this.#files) await rm(temporary, { force: true });
  }
}

interface Placement {
  readonly location: string;
  readonly offset: number;
}

interface Layout {
  /** Tensors that go to external files. */
  readonly placements: Map<Tensor, Placement>;
  /** What each external file holds, in order. */
  readonly files: Map<string, { data: TensorData; offset: number }[]>;
}

function planLayout(model: Model, target: string, policy: ExternalDataPolicy): Layout {
  const placements = new Map<Tensor, Placement>();
  const files: Layout['files'] = new Map();
  const ends = new Map<string, number>();
  const shared = new Map<string, Placement>();
  const put = (tensor: Tensor, data: TensorData, location: string, keepOffset: number | undefined) => {
    const key = data.key === undefined ? undefined : `${location}\0${data.key}`;
    const known = key === undefined ? undefined : shared.get(key);
    if (known !== undefined) {
      placements.set(tensor, known);
      return;
    }
    const end = ends.get(location) ?? 0;
    const offset = keepOffset ?? Math.ceil(end / ALIGNMENT) * ALIGNMENT;
    const placement = { location, offset };
    placements.set(tensor, placement);
    if (key !== undefined) shared.set(key, placement);
    ends.set(location, Math.max(end, offset + data.byteLength));
    const list = files.get(location) ?? [];
    list.push({ data, offset });
    files.set(location, list);
  };
  const fresh: { tensor: Tensor; data: TensorData; location: string }[] = [];
  for (const tensor of model.graph.initializers.values()) {
    const { data } = tensor;
    const location = locationFor(tensor, policy);
    if (location === undefined || data === undefined) continue;
    assertSafeLocation(location, tensor.name);
    if (path.resolve(path.dirname(target), location) === target) {
      throw new ModelFormatError('EXTERNAL_DATA_UNSAFE', 'The data file would have the name of the model.', {
        expected: 'another name for the data file',
        found: location,
      });
    }
    // What stands in a data file already keeps its place, so that an unchanged file stays as it is.
    if (policy === 'preserve' && data instanceof FileRange) put(tensor, data, location, data.offset);
    else fresh.push({ tensor, data, location });
  }
  for (const { tensor, data, location } of fresh) put(tensor, data, location, undefined);
  return { placements, files };
}

function locationFor(tensor: Tensor, policy: ExternalDataPolicy): string | undefined {
  if (tensor.data === undefined || policy === 'inline') return undefined;
  if (policy === 'preserve') return tensor.location;
  return tensor.data.byteLength >= (policy.threshold ?? DEFAULT_THRESHOLD) ? policy.location : undefined;
}

async function writeExternal(
  layout: Layout,
  target: string,
  staging: Staging,
  options: WriteOptions,
): Promise<void> {
  const total = [...layout.files.values()].flat().reduce((sum, { data }) => sum + data.byteLength, 0);
  let done = 0;
  for (const [location, entries] of layout.files) {
    const handle = await staging.create(path.join(path.dirname(target), location));
    for (const { data, offset } of entries) {
      let at = offset;
      for await (const chunk of pieces(data)) {
        options.signal?.throwIfAborted();
        await writeAll(handle, chunk, at);
        at += chunk.byteLength;
        done += chunk.byteLength;
        options.onProgress?.({ phase: 'writing weights', done, total, unit: 'bytes' });
      }
    }
    // An empty tensor at the end would leave the file short of the offset the model names.
    await extend(handle, Math.max(...entries.map(({ data, offset }) => offset + data.byteLength)));
    await staging.close(handle);
  }
}

async function extend(handle: FileHandle, size: number): Promise<void> {
  if ((await handle.stat()).size < size) await handle.truncate(size);
}

async function* pieces(data: TensorData): AsyncIterable<Uint8Array> {
  if (data.chunks !== undefined) yield* data.chunks();
  else yield await data.read();
}

async function writeAll(handle: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  let done = 0;
  while (done < bytes.byteLength) {
    const { bytesWritten } = await handle.write(bytes, done, bytes.byteLength - done, position + done);
    done += bytesWritten;
  }
}

/** A message on its way to the file: bytes, and tensors' bytes that are fetched when their turn comes. */
type Piece = Uint8Array | TensorData;

function lengthOf(pieces: readonly Piece[]): number {
  return pieces.reduce((sum, piece) => sum + piece.byteLength, 0);
}

async function writeProto(
  model: Model,
  layout: Layout,
  target: string,
  staging: Staging,
  options: WriteOptions,
): Promise<void> {
  const graph = graphPieces(model, layout);
  const [before, after] = split(ModelProtoSchema, model.rest, ModelProtoSchema.field.graph.number);
  const message = [before, ...lengthDelimited(ModelProtoSchema.field.graph.number, graph), after];
  const total = lengthOf(message);
  if (total > MESSAGE_LIMIT) {
    throw new ModelFormatError('ONNX_OVER_2GB', 'The model is too large for one ONNX file.', {
      expected: `at most ${MESSAGE_LIMIT} bytes, which is protobuf's limit`,
      found: `${total} bytes`,
      hint: 'Store the weights as external data.',
    });
  }
  const handle = await staging.create(target);
  let at = 0;
  let buffer: Uint8Array[] = [];
  let buffered = 0;
  const flush = async () => {
    if (buffered === 0) return;
    await writeAll(handle, Buffer.concat(buffer, buffered), at);
    at += buffered;
    buffer = [];
    buffered = 0;
  };
  for (const piece of message) {
    options.signal?.throwIfAborted();
    if (piece instanceof Uint8Array) {
      buffer.push(piece);
      buffered += piece.byteLength;
      if (buffered > 1 << 20) await flush();
      continue;
    }
    await flush();
    const start = at;
    for await (const chunk of pieces(piece)) {
      options.signal?.throwIfAborted();
      await writeAll(handle, chunk, at);
      at += chunk.byteLength;
    }
    if (at - start !== piece.byteLength) {
      throw new ModelFormatError('TENSOR_DATA_LENGTH', 'A tensor has another size than announced.', {
        expected: `${piece.byteLength} bytes`,
        found: `${at - start} bytes`,
      });
    }
    options.onProgress?.({ phase: 'writing model', done: at, total, unit: 'bytes' });
  }
  await flush();
  await staging.close(handle);
}

function graphPieces(model: Model, layout: Layout): Piece[] {
  const { graph } = model;
  const field = GraphProtoSchema.field;
  const rest = Object.assign(create(GraphProtoSchema), graph.rest);
  rest.input = graph.inputs;
  rest.output = graph.outputs;
  rest.valueInfo = graph.valueInfo;
  const [named, others] = split(GraphProtoSchema, rest, field.initializer.number);
  const out: Piece[] = [];
  for (const node of graph.nodes) out.push(...lengthDelimited(field.node.number, nodePieces(node)));
  out.push(named);
  for (const tensor of graph.initializers.values()) {
    out.push(
      ...lengthDelimited(field.initializer.number, tensorPieces(tensor, layout.placements.get(tensor))),
    );
  }
  out.push(others);
  return out;
}

function nodePieces(node: Node): Piece[] {
  if (!node.attribute.some(({ t }) => t !== undefined && detachedTensor(t) !== undefined)) {
    return [toBinary(NodeProtoSchema, node)];
  }
  const field = NodeProtoSchema.field;
  const bare = Object.assign(create(NodeProtoSchema), node);
  bare.attribute = [];
  const [before, after] = split(NodeProtoSchema, bare, field.attribute.number);
  const out: Piece[] = [before];
  for (const attribute of node.attribute)
    out.push(...lengthDelimited(field.attribute.number, attributePieces(attribute)));
  out.push(after);
  return out;
}

function attributePieces(attribute: Attribute): Piece[] {
  const tensor = attribute.t === undefined ? undefined : detachedTensor(attribute.t);
  if (tensor === undefined) return [toBinary(AttributeProtoSchema, attribute)];
  const { t } = AttributeProtoSchema.field;
  const bare = Object.assign(create(AttributeProtoSchema), attribute);
  clearField(bare, t);
  const [before, after] = split(AttributeProtoSchema, bare, t.number);
  return [before, ...lengthDelimited(t.number, tensorPieces(tensor, undefined)), after];
}

function tensorPieces(tensor: Tensor, placement: Placement | undefined): Piece[] {
  const { data } = tensor;
  if (data === undefined) return [toBinary(TensorProtoSchema, tensor.header)];
  if (placement !== undefined)
    return [toBinary(TensorProtoSchema, externalHeader(tensor.header, placement, data))];
  const number = payloadFieldNumber(tensor);
  const [before, after] = split(TensorProtoSchema, tensor.header, number);
  return [before, ...lengthDelimited(number, [data]), after];
}

function payloadFieldNumber(tensor: Tensor): number {
  const field = TensorProtoSchema.field;
  if (tensor.field === 'float_data') return field.floatData.number;
  if (tensor.field === 'double_data') return field.doubleData.number;
  return field.rawData.number;
}

function externalHeader(header: TensorProto, placement: Placement, data: TensorData): TensorProto {
  const copy = cloneHeader(header);
  const entry = (key: string, value: string) => create(StringStringEntryProtoSchema, { key, value });
  copy.externalData = [
    entry('location', placement.location),
    entry('offset', String(placement.offset)),
    entry('length', String(data.byteLength)),
    ...header.externalData,
  ];
  copy.dataLocation = EXTERNAL;
  return copy;
}

function lengthDelimited(field: number, body: readonly Piece[]): Piece[] {
  return [varint(BigInt((field << 3) | 2)), varint(BigInt(lengthOf(body))), ...body];
}

/** A message's encoding in two halves: the fields below `at`, and the others with what is unknown. */
function split<D extends DescMessage>(
  schema: D,
  message: MessageShape<D>,
  at: number,
): [Uint8Array, Uint8Array] {
  const low = Object.assign(create(schema), message) as MessageShape<D> & { $unknown?: unknown };
  const high = Object.assign(create(schema), message);
  delete low.$unknown;
  for (const field of schema.fields) clearField(field.number < at ? high : low, field);
  return [toBinary(schema, low), toBinary(schema, high)];
}

function isSystemError(cause: unknown): cause is NodeJS.ErrnoException {
  return cause instanceof Error && 'syscall' in cause && 'code' in cause;
}

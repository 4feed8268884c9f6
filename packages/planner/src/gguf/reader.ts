import { open, stat } from 'node:fs/promises';
import { EnvironmentError, ModelFormatError } from '@cqil/core';
import { FileRange } from '../onnx/index.js';
import { Cursor } from './cursor.js';
import { Metadata, type MetadataValue, readValue } from './metadata.js';
import { TENSOR_TYPES } from './types.js';

/** One tensor: where it is, not what is in it. */
export interface GgufTensor {
  readonly name: string;
  /** Fastest-running dimension first, as the file has it: a matrix is `[in, out]`, out rows of `in` values. */
  readonly dims: readonly number[];
  /** `Q4_1` and the like; see `TENSOR_TYPES`. */
  readonly type: string;
  /** Read when it is asked for. */
  readonly data: FileRange;
}

/** One file of a model: all of it, or one of several. */
export interface GgufPart {
  readonly file: string;
  readonly version: number;
  readonly metadata: Metadata;
  readonly tensors: readonly GgufTensor[];
}

const MAGIC = 0x46554747; // "GGUF"
const DEFAULT_ALIGNMENT = 32;
const MAX_ALIGNMENT = 1024 * 1024;
const MAX_DIMS = 4;

interface TensorInfo {
  readonly name: string;
  readonly dims: number[];
  readonly type: string;
  readonly offset: number;
  readonly byteLength: number;
}

/**
 * Reads metadata and tensor table of one GGUF file (versions 2 and 3, little-endian), and checks them: every
 * tensor inside the file, aligned, named once, overlapping no other.
 *
 * @throws ModelFormatError with a `GGUF_…` code that names what is wrong.
 * @throws EnvironmentError `GGUF_OPEN` when the file cannot be opened.
 */
export async function readPart(file: string): Promise<GgufPart> {
  // Before it is opened: opening a pipe would wait for somebody to write into it.
  const { size } = await regularFile(file);
  const handle = await open(file, 'r').catch(cannotOpen(file));
  try {
    return await parse(new Cursor(handle, file, size), file, size);
  } finally {
    await handle.close();
  }
}

async function regularFile(file: string): Promise<{ size: number }> {
  const found = await stat(file).catch(cannotOpen(file));
  if (found.isFile()) return found;
  throw new ModelFormatError('GGUF_NOT_A_FILE', `${file} is no regular file.`, {
    expected: 'a .gguf file',
    hint: 'Give the path of the model file itself.',
  });
}

function cannotOpen(file: string): (cause: unknown) => never {
  return (cause) => {
    throw new EnvironmentError('GGUF_OPEN', `Cannot open ${file}.`, {
      found: cause instanceof Error ? cause.message : String(cause),
      hint: 'Check the path and whether the file may be read.',
      cause,
    });
  };
}

async function parse(cursor: Cursor, file: string, fileSize: number): Promise<GgufPart> {
  const version = await readVersion(cursor, file);
  // A tensor takes at least name length, dimension count, one dimension, type and offset; a pair key and value.
  const tensorCount = await cursor.count(32, 'tensor count');
  const pairCount = await cursor.count(13, 'metadata count');
  const values = new Map<string, MetadataValue>();
  for (let i = 0; i < pairCount; i++) {
    const key = await cursor.string('metadata key');
    if (values.has(key)) throw duplicate('metadata key', key, file);
    values.set(key, await readValue(cursor, await cursor.u32('metadata type'), key));
  }
  const metadata = new Metadata(values);
  const alignment = readAlignment(metadata);
  const infos: TensorInfo[] = [];
  const names = new Set<string>();
  for (let i = 0; i < tensorCount; i++) {
    const info = await readTensorInfo(cursor, alignment);
    if (names.has(info.name)) throw duplicate('tensor', info.name, file);
    names.add(info.name);
    infos.push(info);
  }
  const dataStart = Math.ceil(cursor.position / alignment) * alignment;
  checkPlaces(infos, file, fileSize - dataStart);
  const tensors = infos.map(({ name, dims, type, offset, byteLength }) => ({
    name,
    dims,
    type,
    data: new FileRange(file, dataStart + offset, byteLength),
  }));
  return { file, version, metadata, tensors };
}

async function readVersion(cursor: Cursor, file: string): Promise<number> {
  const magic = await cursor.u32('magic number');
  if (magic !== MAGIC) {
    throw new ModelFormatError('GGUF_MAGIC', `${file} is no GGUF file.`, {
      expected: 'the four letters GGUF at its beginning',
      found: `0x${magic.toString(16).padStart(8, '0')}`,
      hint: 'Give a .gguf file; other formats have to be converted first.',
    });
  }
  const version = await cursor.u32('version');
  if (version === 2 || version === 3) return version;
  if ((version & 0xffff) === 0 && version !== 0) {
    throw new ModelFormatError('GGUF_BIG_ENDIAN', `${file} is a big-endian GGUF file.`, {
      expected: 'little-endian byte order',
      found: `version field 0x${version.toString(16).padStart(8, '0')}`,
      hint: 'Fetch the little-endian file of this model, or convert it.',
    });
  }
  throw new ModelFormatError('GGUF_VERSION', `${file} has a GGUF version that cannot be read.`, {
    expected: 'version 2 or 3',
    found: `${version}`,
    hint: 'Convert the model to GGUF again with a current converter.',
  });
}

function readAlignment(metadata: Metadata): number {
  const alignment = metadata.number('general.alignment') ?? DEFAULT_ALIGNMENT;
  const good =
    Number.isInteger(alignment) &&
    alignment > 0 &&
    alignment <= MAX_ALIGNMENT &&
    (alignment & (alignment - 1)) === 0;
  if (good) return alignment;
  throw new ModelFormatError('GGUF_ALIGNMENT', 'The alignment of the tensors makes no sense.', {
    expected: `a power of two, at most ${MAX_ALIGNMENT}`,
    found: `${alignment}`,
    hint: 'The file is damaged or was made by a faulty converter.',
  });
}

async function readTensorInfo(cursor: Cursor, alignment: number): Promise<TensorInfo> {
  const name = await cursor.string('tensor name');
  const what = `description of tensor "${name}"`;
  const rank = await cursor.u32(what);
  if (rank < 1 || rank > MAX_DIMS) {
    throw tensorError('GGUF_TENSOR_SHAPE', name, `1 to ${MAX_DIMS} dimensions`, `${rank}`);
  }
  const shape: bigint[] = [];
  for (let i = 0; i < rank; i++) shape.push(await cursor.u64(what));
  const typeId = await cursor.u32(what);
  const offset = await cursor.u64(what);
  const type = TENSOR_TYPES.get(typeId);
  if (type === undefined) {
    throw tensorError('GGUF_TENSOR_TYPE', name, 'a known tensor type', `type id ${typeId}`);
  }
  const elements = shape.reduce((a, b) => a * b, 1n);
  const bytes = (elements / BigInt(type.blockSize)) * BigInt(type.blockBytes);
  if (elements < 1n || bytes > BigInt(Number.MAX_SAFE_INTEGER) || shape[0]! % BigInt(type.blockSize) !== 0n) {
    const expected = `dimensions of at least 1, the first a multiple of ${type.blockSize} for ${type.name}`;
    throw tensorError('GGUF_TENSOR_SHAPE', name, expected, `[${shape.join(', ')}]`);
  }
  if (offset % BigInt(alignment) !== 0n) {
    throw tensorError(
      'GGUF_TENSOR_ALIGNMENT',
      name,
      `an offset that is a multiple of ${alignment}`,
      `${offset}`,
    );
  }
  if (offset > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw tensorError('GGUF_TENSOR_BOUNDS', name, 'an offset inside the file', `${offset}`);
  }
  return {
    name,
    dims: shape.map(Number),
    type: type.name,
    offset: Number(offset),
    byteLength: Number(bytes),
  };
}

/** Every tensor inside the data section, and none over another. */
function checkPlaces(infos: readonly TensorInfo[], file: string, available: number): void {
  const ordered = [...infos].sort((a, b) => a.offset - b.offset);
  let last: TensorInfo | undefined;
  for (const info of ordered) {
    if (info.offset + info.byteLength > available) {
      const found = `offset ${info.offset} and ${info.byteLength} bytes in ${Math.max(0, available)} bytes of data`;
      throw tensorError('GGUF_TENSOR_BOUNDS', info.name, `a tensor inside ${file}`, found);
    }
    if (last !== undefined && last.offset + last.byteLength > info.offset) {
      const found = `it starts at ${info.offset}, and "${last.name}" ends at ${last.offset + last.byteLength}`;
      throw tensorError('GGUF_TENSOR_OVERLAP', info.name, 'tensors that share no bytes', found);
    }
    last = info;
  }
}

function tensorError(code: string, name: string, expected: string, found: string): ModelFormatError {
  return new ModelFormatError(code, `Tensor "${name}" is not described rightly.`, {
    expected,
    found,
    hint: 'The file is cut off or damaged; fetch it again.',
  });
}

function duplicate(kind: string, name: string, file: string): ModelFormatError {
  return new ModelFormatError('GGUF_DUPLICATE', `${file} has the ${kind} "${name}" twice.`, {
    expected: 'every name once',
    hint: 'The file is damaged or was made by a faulty converter.',
  });
}

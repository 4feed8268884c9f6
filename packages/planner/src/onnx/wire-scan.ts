import type { FileHandle } from 'node:fs/promises';
import { ModelFormatError } from '@cqil/core';

/**
 * Walks the protobuf wire format of a model file without loading it: everything but the bytes of large tensors
 * is copied into a small "skeleton" message that an ordinary protobuf reader decodes, and for each tensor left
 * out its place in the file is recorded. So the memory a model takes does not depend on its weights.
 */

/** Where the bytes of a tensor that was left out of the skeleton are. */
export interface LeftOut {
  readonly field: 'raw_data' | 'float_data' | 'double_data';
  readonly offset: number;
  readonly length: number;
}

export interface Skeleton {
  readonly bytes: Uint8Array;
  /** `i:<index>` for the graph's initialisers, `n:<node>:<attribute>` for the `t` attributes of its nodes. */
  readonly leftOut: ReadonlyMap<string, LeftOut>;
}

/** Tensors below this size stay in the skeleton. */
const LEAVE_OUT_FROM = 4096;
/** Messages below this size are copied without a look inside. */
const LOOK_INSIDE_FROM = LEAVE_OUT_FROM;
/** What the skeleton may grow to; a decoder's graph without its weights is a few megabytes. */
const SKELETON_LIMIT = 1024 * 1024 * 1024;

const WireType = { VARINT: 0, FIXED64: 1, LENGTH: 2, START_GROUP: 3, END_GROUP: 4, FIXED32: 5 } as const;

interface Field {
  readonly number: number;
  readonly wireType: number;
  /** Where the field's tag begins. */
  readonly start: number;
  /** Where its value begins (behind the length of a length-delimited field). */
  readonly valueStart: number;
  readonly end: number;
}

class Pieces {
  readonly parts: Uint8Array[] = [];
  length = 0;
  push(bytes: Uint8Array): void {
    this.parts.push(bytes);
    this.length += bytes.byteLength;
  }
  append(other: Pieces): void {
    for (const part of other.parts) this.push(part);
  }
  join(): Uint8Array {
    const out = new Uint8Array(this.length);
    let at = 0;
    for (const part of this.parts) {
      out.set(part, at);
      at += part.byteLength;
    }
    return out;
  }
}

/** Reads small pieces of a file through one window, so that a walk over tags makes few system calls. */
class Window {
  readonly #handle: FileHandle;
  readonly size: number;
  #start = 0;
  #bytes: Uint8Array = new Uint8Array(0);
  static readonly SPAN = 256 * 1024;

  constructor(handle: FileHandle, size: number) {
    this.#handle = handle;
    this.size = size;
  }

  /** Bytes from `offset`, at least one and at most `Window.SPAN` of them; empty at the end of the file. */
  async peek(offset: number, want: number): Promise<Uint8Array> {
    const end = Math.min(this.size, offset + want);
    if (offset < this.#start || end > this.#start + this.#bytes.byteLength) {
      const span = Math.min(Window.SPAN, this.size - offset);
      this.#bytes = await this.#readExactly(offset, Math.max(0, span));
      this.#start = offset;
    }
    return this.#bytes.subarray(offset - this.#start, end - this.#start);
  }

  async copy(offset: number, length: number): Promise<Uint8Array> {
    if (length <= Window.SPAN) return Uint8Array.from(await this.peek(offset, length));
    return this.#readExactly(offset, length);
  }

  async #readExactly(offset: number, length: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(length);
    let done = 0;
    while (done < length) {
      const { bytesRead } = await this.#handle.read(bytes, done, length - done, offset + done);
      if (bytesRead === 0) throw truncated(offset + done, 'the file became shorter while it was read');
      done += bytesRead;
    }
    return bytes;
  }
}

/**
 * @throws ModelFormatError `ONNX_TRUNCATED`, `ONNX_NOT_PROTOBUF`, `ONNX_TOO_LARGE`.
 */
export async function scanModelFile(handle: FileHandle, size: number): Promise<Skeleton> {
  const scan = new Scan(new Window(handle, size));
  const model = await scan.model(size);
  return { bytes: model.join(), leftOut: scan.leftOut };
}

class Scan {
  readonly leftOut = new Map<string, LeftOut>();
  #initializers = 0;
  #nodes = 0;
  readonly #window: Window;
  #copied = 0;

  constructor(window: Window) {
    this.#window = window;
  }

  async model(size: number): Promise<Pieces> {
    const out = new Pieces();
    for await (const field of this.#fields(0, size)) {
      if (field.number === 7) {
        requireMessage(field, 'graph');
        emit(out, 7, await this.#graph(field));
      } else {
        out.push(await this.#whole(field));
      }
    }
    return out;
  }

  async #graph(graph: Field): Promise<Pieces> {
    const out = new Pieces();
    for await (const field of this.#fields(graph.valueStart, graph.end)) {
      const what = GRAPH_MESSAGES[field.number];
      if (what !== undefined) requireMessage(field, what);
      if (field.number === 5) {
        const key = `i:${this.#initializers++}`;
        if (isLarge(field)) emit(out, 5, await this.#tensor(field, key));
        else out.push(await this.#whole(field));
      } else if (field.number === 1) {
        const index = this.#nodes++;
        if (isLarge(field)) emit(out, 1, await this.#node(field, index));
        else out.push(await this.#whole(field));
      } else {
        out.push(await this.#whole(field));
      }
    }
    return out;
  }

  async #node(node: Field, index: number): Promise<Pieces> {
    const out = new Pieces();
    let attributes = 0;
    for await (const field of this.#fields(node.valueStart, node.end)) {
      if (field.number === 5 && field.wireType === WireType.LENGTH) {
        const attribute = attributes++;
        if (isLarge(field)) emit(out, 5, await this.#attribute(field, `n:${index}:${attribute}`));
        else out.push(await this.#whole(field));
      } else {
        out.push(await this.#whole(field));
      }
    }
    return out;
  }

  async #attribute(attribute: Field, key: string): Promise<Pieces> {
    const out = new Pieces();
    for await (const field of this.#fields(attribute.valueStart, attribute.end)) {
      if (field.number === 5 && field.wireType === WireType.LENGTH && isLarge(field)) {
        emit(out, 5, await this.#tensor(field, key));
      } else {
        out.push(await this.#whole(field));
      }
    }
    return out;
  }

  async #tensor(tensor: Field, key: string): Promise<Pieces> {
    const out = new Pieces();
    for await (const field of this.#fields(tensor.valueStart, tensor.end)) {
      const kind = field.wireType === WireType.LENGTH ? PAYLOAD_FIELDS[field.number] : undefined;
      const length = field.end - field.valueStart;
      // A packed field may come in several pieces, which protobuf joins; only a single large one is left out.
      if (kind !== undefined && length >= LEAVE_OUT_FROM && !this.leftOut.has(key)) {
        this.leftOut.set(key, { field: kind, offset: field.valueStart, length });
      } else {
        if (kind !== undefined && this.leftOut.has(key)) throw repeatedPayload(field.start);
        out.push(await this.#whole(field));
      }
    }
    return out;
  }

  async #whole(field: Field): Promise<Uint8Array> {
    this.#copied += field.end - field.start;
    if (this.#copied > SKELETON_LIMIT) {
      throw new ModelFormatError('ONNX_TOO_LARGE', 'The graph without its weights is too large to be read.', {
        expected: `at most ${SKELETON_LIMIT} bytes of nodes and small tensors`,
        found: 'more',
        hint: 'Is this an ONNX model? If so, store its weights as raw data or as external data.',
      });
    }
    return this.#window.copy(field.start, field.end - field.start);
  }

  async *#fields(start: number, end: number): AsyncGenerator<Field> {
    for (let at = start; at < end; ) {
      const tag = await this.#varint(at, end);
      const number = Number(tag.value >> 3n);
      const wireType = Number(tag.value & 7n);
      if (number === 0 || tag.value > 0xffffffffn) throw notProtobuf(at, `a field number ${number}`);
      let valueStart = tag.next;
      let valueEnd: number;
      switch (wireType) {
        case WireType.VARINT:
          valueEnd = (await this.#varint(valueStart, end)).next;
          break;
        case WireType.FIXED64:
          valueEnd = valueStart + 8;
          break;
        case WireType.FIXED32:
          valueEnd = valueStart + 4;
          break;
        case WireType.LENGTH: {
          const length = await this.#varint(valueStart, end);
          valueStart = length.next;
          if (length.value > BigInt(end - valueStart)) {
            throw truncated(at, `a field of ${length.value} bytes where ${end - valueStart} are left`);
          }
          valueEnd = valueStart + Number(length.value);
          break;
        }
        default:
          throw notProtobuf(at, `wire type ${wireType}`);
      }
      if (valueEnd > end)
        throw truncated(at, `a field that ends at ${valueEnd}, behind its message (${end})`);
      yield { number, wireType, start: at, valueStart, end: valueEnd };
      at = valueEnd;
    }
  }

  async #varint(at: number, end: number): Promise<{ value: bigint; next: number }> {
    const bytes = await this.#window.peek(at, Math.min(10, end - at));
    let value = 0n;
    for (let i = 0; i < bytes.byteLength; i++) {
      const byte = bytes[i] as number;
      value |= BigInt(byte & 0x7f) << BigInt(7 * i);
      if (byte < 0x80) return { value: BigInt.asUintN(64, value), next: at + i + 1 };
    }
    throw bytes.byteLength === 10
      ? notProtobuf(at, 'a number of more than 10 bytes')
      : truncated(at, 'the end');
  }
}

const PAYLOAD_FIELDS: Readonly<Record<number, LeftOut['field']>> = {
  9: 'raw_data',
  4: 'float_data',
  10: 'double_data',
};

/** Fields of a GraphProto that hold messages. */
const GRAPH_MESSAGES: Readonly<Record<number, string>> = {
  1: 'node',
  5: 'initializer',
  11: 'input',
  12: 'output',
  13: 'value_info',
};

/** The protobuf reader takes a number in a message's place for the message's length. */
function requireMessage(field: Field, name: string): void {
  if (field.wireType === WireType.LENGTH) return;
  throw notProtobuf(field.start, `wire type ${field.wireType} for "${name}", which is a message`);
}

function isLarge(field: Field): boolean {
  return field.end - field.valueStart >= LOOK_INSIDE_FROM;
}

function emit(out: Pieces, number: number, body: Pieces): void {
  out.push(varint(BigInt((number << 3) | WireType.LENGTH)));
  out.push(varint(BigInt(body.length)));
  out.append(body);
}

/** Base-128 varint of a non-negative number (protobuf encoding). */
export function varint(value: bigint): Uint8Array {
  const bytes: number[] = [];
  let rest = value;
  do {
    const low = Number(rest & 0x7fn);
    rest >>= 7n;
    bytes.push(rest === 0n ? low : low | 0x80);
  } while (rest !== 0n);
  return Uint8Array.from(bytes);
}

function truncated(offset: number, found: string): ModelFormatError {
  return new ModelFormatError('ONNX_TRUNCATED', 'The ONNX file is cut off or damaged.', {
    expected: 'complete protobuf fields',
    found: `${found} (at byte ${offset})`,
    hint: 'Fetch or export the model again.',
  });
}

function notProtobuf(offset: number, found: string): ModelFormatError {
  return new ModelFormatError('ONNX_NOT_PROTOBUF', 'This is not an ONNX file, or it is damaged.', {
    expected: 'the protobuf encoding of an ONNX ModelProto',
    found: `${found} (at byte ${offset})`,
    hint: 'Give an .onnx file; if it is one, fetch or export it again.',
  });
}

function repeatedPayload(offset: number): ModelFormatError {
  return new ModelFormatError('ONNX_TENSOR_PAYLOAD', 'A tensor gives its values twice.', {
    expected: 'one of raw_data, float_data, double_data',
    found: `a second one (at byte ${offset})`,
    hint: 'The file is damaged; fetch or export it again.',
  });
}

import type { FileHandle } from 'node:fs/promises';
import { ModelFormatError } from '@cqil/core';

const WINDOW = 1024 * 1024;

/**
 * More than any model's metadata needs (the largest vocabularies take some 20 MB), and little enough that a
 * file made to exhaust memory is refused instead.
 */
export const MAX_HEADER_BYTES = 256 * 1024 * 1024;

const utf8 = new TextDecoder('utf-8');

/**
 * Reads little-endian values one after the other, through a window of the file. No read is begun before it is
 * known that the bytes exist, so a count in the file never decides about an allocation.
 */
export class Cursor {
  readonly #handle: FileHandle;
  readonly #file: string;
  readonly #end: number;
  #window = new Uint8Array(0);
  #view = new DataView(new ArrayBuffer(0));
  #windowStart = 0;
  #position = 0;

  constructor(handle: FileHandle, file: string, fileSize: number) {
    this.#handle = handle;
    this.#file = file;
    this.#end = fileSize;
  }

  /** Offset of the next value in the file. */
  get position(): number {
    return this.#position;
  }

  /** Bytes left in the file. */
  get remaining(): number {
    return this.#end - this.#position;
  }

  /** Whether the next `bytes` bytes can be had without reading from the disk. */
  #buffered(bytes: number): boolean {
    return this.#position + bytes <= this.#windowStart + this.#window.byteLength;
  }

  /** Makes sure that `bytes` bytes stand in the window and returns where they start in it. */
  async #need(bytes: number, what: string): Promise<number> {
    if (!this.#buffered(bytes)) await this.#fill(bytes, what);
    const at = this.#position - this.#windowStart;
    this.#position += bytes;
    return at;
  }

  async #fill(bytes: number, what: string): Promise<void> {
    if (bytes > this.remaining) {
      throw new ModelFormatError('GGUF_TRUNCATED', `${this.#file} ends inside its ${what}.`, {
        expected: `${bytes} more bytes at offset ${this.#position}`,
        found: `${this.remaining} bytes`,
        hint: 'The file is cut off or damaged; fetch it again.',
      });
    }
    if (this.#position + bytes > MAX_HEADER_BYTES) {
      throw new ModelFormatError('GGUF_HEADER_TOO_LARGE', `The metadata of ${this.#file} is too large.`, {
        expected: `metadata and tensor table within ${MAX_HEADER_BYTES} bytes`,
        found: `${this.#position + bytes} bytes or more`,
        hint: 'The file is damaged or was not made by a GGUF converter.',
      });
    }
    const length = Math.min(this.remaining, Math.max(WINDOW, bytes));
    const window = new Uint8Array(length);
    let filled = 0;
    while (filled < length) {
      const { bytesRead } = await this.#handle.read(window, filled, length - filled, this.#position + filled);
      if (bytesRead === 0) break;
      filled += bytesRead;
    }
    if (filled < bytes) {
      throw new ModelFormatError('GGUF_TRUNCATED', `${this.#file} became shorter while it was read.`, {
        expected: `${bytes} bytes at offset ${this.#position}`,
        found: `${filled} bytes`,
      });
    }
    this.#window = window.subarray(0, filled);
    this.#view = new DataView(window.buffer, 0, filled);
    this.#windowStart = this.#position;
  }

  async u8(what: string): Promise<number> {
    const at = await this.#need(1, what);
    return this.#view.getUint8(at);
  }
  async i8(what: string): Promise<number> {
    const at = await this.#need(1, what);
    return this.#view.getInt8(at);
  }
  async u16(what: string): Promise<number> {
    const at = await this.#need(2, what);
    return this.#view.getUint16(at, true);
  }
  async i16(what: string): Promise<number> {
    const at = await this.#need(2, what);
    return this.#view.getInt16(at, true);
  }
  async u32(what: string): Promise<number> {
    const at = await this.#need(4, what);
    return this.#view.getUint32(at, true);
  }
  async i32(what: string): Promise<number> {
    const at = await this.#need(4, what);
    return this.#view.getInt32(at, true);
  }
  async f32(what: string): Promise<number> {
    const at = await this.#need(4, what);
    return this.#view.getFloat32(at, true);
  }
  async f64(what: string): Promise<number> {
    const at = await this.#need(8, what);
    return this.#view.getFloat64(at, true);
  }
  async u64(what: string): Promise<bigint> {
    const at = await this.#need(8, what);
    return this.#view.getBigUint64(at, true);
  }
  async i64(what: string): Promise<bigint> {
    const at = await this.#need(8, what);
    return this.#view.getBigInt64(at, true);
  }

  /** A copy of the next `length` bytes. */
  async bytes(length: number, what: string): Promise<Uint8Array> {
    const at = await this.#need(length, what);
    return this.#window.slice(at, at + length);
  }

  /** A count of things that take at least `itemBytes` bytes each, and so cannot outnumber the bytes left. */
  async count(itemBytes: number, what: string): Promise<number> {
    const count = await this.u64(what);
    if (count > BigInt(Math.floor(this.remaining / itemBytes))) {
      throw new ModelFormatError('GGUF_COUNT', `The ${what} of ${this.#file} cannot be right.`, {
        expected: `at most ${Math.floor(this.remaining / itemBytes)}, which is what the rest of the file can hold`,
        found: `${count}`,
        hint: 'The file is cut off or damaged; fetch it again.',
      });
    }
    return Number(count);
  }

  /** A string: its length in bytes as 64 bits, then UTF-8. */
  async string(what: string): Promise<string> {
    const length = await this.count(1, `length of ${what}`);
    const at = await this.#need(length, what);
    return utf8.decode(this.#window.subarray(at, at + length));
  }
}

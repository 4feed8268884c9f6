import { open } from 'node:fs/promises';
import { ModelFormatError } from '@cqil/core';

/**
 * The raw bytes of a tensor (little-endian, row-major), wherever they are. A reader may ask more than once;
 * nobody changes the bytes that `read` gives back.
 */
export interface TensorData {
  readonly byteLength: number;
  /** All bytes at once. */
  read(): Promise<Uint8Array>;
  /** The bytes in pieces, for copying without holding the tensor. */
  chunks?(): AsyncIterable<Uint8Array>;
  /** Tensors with equal keys hold the same bytes and are written once. */
  readonly key?: string;
}

/** Bytes that are in memory already. */
export class InlineData implements TensorData {
  readonly #bytes: Uint8Array;
  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }
  get byteLength(): number {
    return this.#bytes.byteLength;
  }
  async read(): Promise<Uint8Array> {
    return this.#bytes;
  }
}

/** Bytes made when they are asked for, so that a writer holds one tensor at a time. */
export class ComputedData implements TensorData {
  constructor(
    readonly byteLength: number,
    readonly compute: () => Promise<Uint8Array> | Uint8Array,
  ) {}
  async read(): Promise<Uint8Array> {
    const bytes = await this.compute();
    if (bytes.byteLength !== this.byteLength) {
      throw new ModelFormatError('TENSOR_DATA_LENGTH', 'A computed tensor has another size than announced.', {
        expected: `${this.byteLength} bytes`,
        found: `${bytes.byteLength} bytes`,
      });
    }
    return bytes;
  }
}

const CHUNK = 8 * 1024 * 1024;

/** A range of a file, read when it is asked for. */
export class FileRange implements TensorData {
  constructor(
    readonly file: string,
    readonly offset: number,
    readonly byteLength: number,
  ) {}

  get key(): string {
    return `${this.file}:${this.offset}:${this.byteLength}`;
  }

  async read(): Promise<Uint8Array> {
    const bytes = new Uint8Array(this.byteLength);
    let filled = 0;
    for await (const chunk of this.#pieces(bytes)) filled += chunk.byteLength;
    if (filled !== this.byteLength) throw this.#short(filled);
    return bytes;
  }

  chunks(): AsyncIterable<Uint8Array> {
    return this.#pieces(undefined);
  }

  /** Reads into `target`, or into one reused buffer when there is none. */
  async *#pieces(target: Uint8Array | undefined): AsyncGenerator<Uint8Array> {
    const handle = await open(this.file, 'r');
    try {
      const buffer = target ?? new Uint8Array(Math.min(CHUNK, this.byteLength));
      for (let done = 0; done < this.byteLength; ) {
        const want = Math.min(CHUNK, this.byteLength - done);
        const at = target === undefined ? 0 : done;
        const { bytesRead } = await handle.read(buffer, at, want, this.offset + done);
        if (bytesRead === 0) throw this.#short(done);
        yield buffer.subarray(at, at + bytesRead);
        done += bytesRead;
      }
    } finally {
      await handle.close();
    }
  }

  #short(got: number): ModelFormatError {
    return new ModelFormatError('TENSOR_DATA_TRUNCATED', `${this.file} ends inside a tensor.`, {
      expected: `${this.byteLength} bytes from offset ${this.offset}`,
      found: `${got} bytes`,
      hint: 'The file changed or was cut after it was opened; fetch it again.',
    });
  }
}

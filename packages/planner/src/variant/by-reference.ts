import { type FileHandle, open, realpath } from 'node:fs/promises';
import path from 'node:path';
import { create } from '@bufbuild/protobuf';
import { EXTERNAL } from '../onnx/external-data.js';
import { StringStringEntryProtoSchema } from '../onnx/gen/onnx_pb.js';
import { bitsPerElement, FileRange, type Model, type TensorData } from '../onnx/index.js';
import { cloneHeader, Tensor } from '../onnx/tensor.js';

/** Smaller tensors stay in the message: shapes and constants that ONNX Runtime folds need to be there. */
const INLINE_BELOW = 4096;
/** For tensors that are copied. */
const ALIGNMENT = 64;

/** A model whose weights are named by place instead of held. */
export interface ReferencedModel {
  readonly model: Model;
  /** What the places are relative to. */
  readonly folder: string;
}

/**
 * Replaces weights by references to the files that hold them.
 *
 * Weights inside an `.onnx` file are a range of that file, too, so nothing needs to be copied; only what ONNX
 * Runtime could not map (badly aligned, on another drive, or made in memory) goes to a file in `scratch`.
 */
export async function byReference(model: Model, scratch: string): Promise<ReferencedModel> {
  const copy = model.clone();
  const spill = new Spill(path.join(await realpath(scratch), 'weights.bin'));
  const { root } = path.parse(spill.file);
  const real = new Map<string, string>();
  try {
    for (const [name, tensor] of model.graph.initializers) {
      const { data } = tensor;
      if (data === undefined || data.byteLength < INLINE_BELOW) continue;
      let place: Place | undefined;
      if (data instanceof FileRange) {
        const file = real.get(data.file) ?? (await realpath(data.file));
        real.set(data.file, file);
        if (path.parse(file).root === root && isAligned(tensor, data.offset))
          place = { file, offset: data.offset };
      }
      place ??= await spill.add(data);
      copy.graph.initializers.set(name, referring(tensor, data, place, root));
    }
  } finally {
    await spill.close();
  }
  return { model: copy, folder: root };
}

interface Place {
  readonly file: string;
  readonly offset: number;
}

export function isAligned(tensor: Tensor, offset: number): boolean {
  return offset % Math.max(1, (bitsPerElement(tensor.dataType) ?? 64) / 8) === 0;
}

export function referring(tensor: Tensor, data: TensorData, place: Place, root: string): Tensor {
  const header = cloneHeader(tensor.header);
  const entry = (key: string, value: string) => create(StringStringEntryProtoSchema, { key, value });
  header.externalData = [
    entry('location', path.relative(root, place.file)),
    entry('offset', String(place.offset)),
    entry('length', String(data.byteLength)),
  ];
  header.dataLocation = EXTERNAL;
  return Tensor.fromWire(header);
}

/** A file that weights are copied to, one after the other; equal ones once. */
class Spill {
  #handle: FileHandle | undefined;
  #end = 0;
  readonly #known = new Map<string, Place>();

  constructor(readonly file: string) {}

  async add(data: TensorData): Promise<Place> {
    const known = data.key === undefined ? undefined : this.#known.get(data.key);
    if (known !== undefined) return known;
    this.#handle ??= await open(this.file, 'wx');
    const place = { file: this.file, offset: Math.ceil(this.#end / ALIGNMENT) * ALIGNMENT };
    let at = place.offset;
    const pieces = data.chunks?.() ?? [await data.read()];
    for await (const piece of pieces) {
      for (let done = 0; done < piece.byteLength; ) {
        const { bytesWritten } = await this.#handle.write(piece, done, piece.byteLength - done, at + done);
        done += bytesWritten;
      }
      at += piece.byteLength;
    }
    this.#end = at;
    if (data.key !== undefined) this.#known.set(data.key, place);
    return place;
  }

  async close(): Promise<void> {
    await this.#handle?.close();
  }
}

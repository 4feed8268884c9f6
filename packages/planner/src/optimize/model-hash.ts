import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { DataType, FileRange, type Model } from '../onnx/index.js';

/** SHA-256 of a graph's file and of all weights that it has elsewhere, which are read in pieces. */
export async function modelHash(model: Model, file: string, signal?: AbortSignal): Promise<string> {
  const hash = createHash('sha256');
  for await (const piece of createReadStream(file)) hash.update(piece as Buffer);
  for (const [name, tensor] of model.graph.initializers) {
    signal?.throwIfAborted();
    const { data } = tensor;
    if (!(data instanceof FileRange) || data.file === file || tensor.dataType === DataType.STRING) continue;
    hash.update(name);
    for await (const piece of data.chunks()) hash.update(piece);
  }
  return hash.digest('hex');
}

import { ComputedData, FileRange, type TensorData } from '../onnx/index.js';
import { dequantise } from './dequantise.js';
import { toHalf } from './half.js';
import { quantLayout } from './types.js';
import type { LinearLayer, MatrixRows, VectorRows } from './weights.js';

/** Storage of weights that are not in blocks. */
export type FloatType = 'float32' | 'float16';

/** What is held at once of a tensor that is converted in pieces. */
const PIECE_BYTES = 64 * 1024 * 1024;

export const elementBytes = (type: FloatType): number => (type === 'float32' ? 4 : 2);

export function encodeFloats(values: Float32Array, type: FloatType): Uint8Array {
  const array = type === 'float32' ? values : toHalf(values);
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}

/** Bytes of one row as the file has it. */
export function rowBytes({ type, inputs }: MatrixRows): number {
  const { blockBytes, blockSize } = quantLayout(type);
  return (inputs / blockSize) * blockBytes;
}

/**
 * The rows of a matrix in the order asked for, still encoded, some at a time.
 * Rows are whole runs of blocks, so reordering them loses nothing.
 */
export async function* encodedRows(
  matrix: MatrixRows,
  rowsAtOnce: number,
): AsyncGenerator<{ first: number; count: number; bytes: Uint8Array }> {
  const { outputs, order, tensor } = matrix;
  const size = rowBytes(matrix);
  const whole = order === undefined ? undefined : await tensor.data.read();
  for (let first = 0; first < outputs; first += rowsAtOnce) {
    const count = Math.min(rowsAtOnce, outputs - first);
    if (whole === undefined || order === undefined) {
      const { file, offset } = tensor.data;
      const bytes = await new FileRange(file, offset + first * size, count * size).read();
      yield { first, count, bytes };
      continue;
    }
    const bytes = new Uint8Array(count * size);
    for (let row = 0; row < count; row++) {
      const from = order[first + row]! * size;
      bytes.set(whole.subarray(from, from + size), row * size);
    }
    yield { first, count, bytes };
  }
}

/** A vector, or several one after the other. */
export function vectorData(vectors: readonly VectorRows[], type: FloatType): TensorData {
  const length = vectors.reduce((sum, { tensor }) => sum + tensor.dims[0]!, 0);
  return new ComputedData(length * elementBytes(type), async () => {
    const out = new Float32Array(length);
    let at = 0;
    for (const vector of vectors) {
      const values = await readVector(vector);
      out.set(values, at);
      at += values.length;
    }
    return encodeFloats(out, type);
  });
}

export async function readVector({ tensor, type, order }: VectorRows): Promise<Float32Array> {
  const values = dequantise(type, await tensor.data.read());
  return order === undefined ? values : Float32Array.from(order, (from) => values[from]!);
}

/** Data that is made piece by piece, each piece only when the one before is written. */
export class PieceData implements TensorData {
  constructor(
    readonly byteLength: number,
    readonly chunks: () => AsyncIterable<Uint8Array>,
  ) {}

  async read(): Promise<Uint8Array> {
    const out = new Uint8Array(this.byteLength);
    let at = 0;
    for await (const chunk of this.chunks()) {
      out.set(chunk, at);
      at += chunk.byteLength;
    }
    return out;
  }
}

/** A matrix as it stands, `[outputs, inputs]`: what `Gather` reads as an embedding table. */
export function rowMajorData(matrix: MatrixRows, type: FloatType): TensorData {
  const { inputs, outputs } = matrix;
  const rows = Math.max(1, Math.floor(PIECE_BYTES / (8 * inputs)));
  return new PieceData(outputs * inputs * elementBytes(type), async function* () {
    for await (const { bytes } of encodedRows(matrix, rows)) {
      yield encodeFloats(dequantise(matrix.type, bytes), type);
    }
  });
}

/** The weights of a linear layer as `MatMul` wants them, `[inputs, outputs]`. */
export function matMulData(layer: LinearLayer, type: FloatType): TensorData {
  const { inputs, outputs } = layer;
  const slab = Math.min(inputs, Math.max(1, Math.floor(PIECE_BYTES / (4 * outputs))));
  return new PieceData(inputs * outputs * elementBytes(type), async function* () {
    for (let from = 0; from < inputs; from += slab) {
      const count = Math.min(slab, inputs - from);
      yield encodeFloats(await transposedSlab(layer, from, count), type);
    }
  });
}

/** Rows `from` to `from + count` of the transposed weights. */
async function transposedSlab(layer: LinearLayer, from: number, count: number): Promise<Float32Array> {
  const { outputs } = layer;
  const out = new Float32Array(count * outputs);
  let column = 0;
  for (const part of layer.parts) {
    // Few rows at a time, so that what is read with a stride stays in the cache.
    for await (const { first, count: rows, bytes } of encodedRows(part, 64)) {
      const values = dequantise(part.type, bytes);
      for (let k = 0; k < count; k++) {
        const to = k * outputs + column + first;
        for (let r = 0; r < rows; r++) out[to + r] = values[r * part.inputs + from + k]!;
      }
    }
    column += part.outputs;
  }
  return out;
}

import { halfTable } from '../gguf/half.js';
import { DataType, type Tensor } from '../onnx/index.js';
import type { StoredMatrix } from './sites.js';

/** The values of a float32 or float16 tensor. */
export async function floatValues(tensor: Tensor): Promise<Float32Array> {
  const { buffer } = Uint8Array.from(await tensor.bytes());
  if (tensor.dataType !== DataType.FLOAT16) return new Float32Array(buffer);
  const table = halfTable();
  return Float32Array.from(new Uint16Array(buffer), (half) => table[half]!);
}

/** Row-major `[inFeatures, outFeatures]`. */
export async function matrixValues({ tensor, transposed, factor }: StoredMatrix): Promise<Float32Array> {
  const stored = await floatValues(tensor);
  if (factor !== 1) for (let i = 0; i < stored.length; i++) stored[i]! *= factor;
  const [rows = 0, columns = 0] = tensor.dims;
  return transposed ? turned(stored, rows, columns) : stored;
}

/** `[rows, columns]` to `[columns, rows]`. */
export function turned(values: Float32Array, rows: number, columns: number): Float32Array {
  const out = new Float32Array(values.length);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++)
      out[column * rows + row] = values[row * columns + column]!;
  }
  return out;
}

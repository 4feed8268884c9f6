import { Tensor } from 'onnxruntime-node';
import { InferenceError } from '../errors.js';
import { type ElementType, elementCount, type TensorValue } from '../tensor/types.js';

/** A tensor as ONNX Runtime takes it; the elements are shared, not copied. */
export function toOrt(name: string, value: TensorValue): Tensor {
  const packed = value.type === 'int4' || value.type === 'uint4';
  const expected = packed ? Math.ceil(elementCount(value.dims) / 2) : elementCount(value.dims);
  if (value.data.length !== expected) {
    throw new InferenceError('INPUT_SHAPE', `The tensor for "${name}" does not fill its shape.`, {
      expected: `${expected} elements for [${value.dims.join(', ')}]`,
      found: `${value.data.length} elements`,
    });
  }
  // onnxruntime-common types its constructor by overloads on literal type names; the union fits none of them.
  const tensor = new Tensor(value.type as 'float32', value.data as Float32Array, value.dims);
  if (value.type === 'float16') keepBits(tensor, value.data);
  return tensor;
}

/**
 * Where the JavaScript engine has Float16Array (Node.js 24), ONNX Runtime's JavaScript half turns 16-bit floats
 * into one, which its native half (1.30) cannot tell the length of: it fails in some runs with "not enough space".
 * It reads the elements from `data`, so that is given to it as the bits.
 */
function keepBits(tensor: Tensor, bits: TensorValue['data']): void {
  Object.defineProperty(tensor, 'data', { value: bits });
}

/** A tensor as this package hands it out; the elements are shared, not copied. */
export function fromOrt(tensor: Tensor): TensorValue {
  const type = tensor.type as ElementType;
  const raw = tensor.data as ArrayBufferView | string[];
  // Where the JavaScript engine has Float16Array, ONNX Runtime answers with it; the bits are the same.
  const data =
    type === 'float16' && !Array.isArray(raw)
      ? new Uint16Array(raw.buffer, raw.byteOffset, raw.byteLength / 2)
      : raw;
  return { type, dims: tensor.dims, data } as TensorValue;
}

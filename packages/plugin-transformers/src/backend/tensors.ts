import { elementCount, type TensorValue, type ValueInfo } from '@cqil/runtime-gpu';
import type { OrtTensor, OrtTensorClass, OrtValueMetadata } from './ort.js';

/** A tensor of a program's as a session takes it; the elements are shared, not copied. */
export function toValue(tensor: OrtTensor): TensorValue {
  const { type, dims } = tensor;
  const data = tensor.data as ArrayBufferView | string[];
  // 16-bit floats come as Float16Array where the JavaScript engine has that; the bits are the same.
  const elements =
    type === 'float16' && !Array.isArray(data)
      ? new Uint16Array(data.buffer, data.byteOffset, data.byteLength / 2)
      : data;
  return { type, dims, data: elements } as TensorValue;
}

/** A tensor of a session's as ONNX Runtime's JavaScript half hands it out; the elements are shared, not copied. */
export function toTensor(Tensor: OrtTensorClass, value: TensorValue): OrtTensor {
  // The constructor wants bytes of one kind for both 4-bit types.
  const data =
    value.type === 'int4'
      ? new Uint8Array(value.data.buffer, value.data.byteOffset, value.data.length)
      : value.data;
  return new Tensor(value.type as 'float32', data as Float32Array, value.dims);
}

/** Inputs and outputs as `InferenceSession.inputMetadata` and `outputMetadata` give them. */
export function metadataOf(values: readonly ValueInfo[]): OrtValueMetadata[] {
  return values.map(({ name, elementType, shape }) => ({
    name,
    isTensor: true,
    type: elementType,
    shape: [...shape],
  })) as OrtValueMetadata[];
}

/** Writes a result into memory that the program gave for it, as onnxruntime-node does. */
export function writeInto(given: OrtTensor, value: TensorValue): void {
  const target = toValue(given);
  if (target.type !== value.type || elementCount(target.dims) !== elementCount(value.dims)) {
    throw new Error(
      `The memory for an output does not fit: ${target.type}[${target.dims.join()}] was given, ` +
        `${value.type}[${value.dims.join()}] is needed.`,
    );
  }
  (target.data as Float32Array).set(value.data as Float32Array);
}

export { float16BitsToNumber, float16ToFloat32, float32ToFloat16, numberToFloat16Bits } from './float16.js';
export { asFloat32, integerTensor, zeroTensor } from './make.js';
export {
  type ElementArrays,
  type ElementType,
  elementCount,
  type TensorOf,
  type TensorValue,
} from './types.js';

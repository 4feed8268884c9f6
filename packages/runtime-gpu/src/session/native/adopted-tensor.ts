import { InferenceError } from '../../errors.js';
import { elementCount, type TensorValue } from '../../tensor/types.js';
import type { Pointer } from './api.js';
import { arrayOver, byteLength, type PlainType, plainType } from './element-types.js';
import { check, type OrtLibrary } from './library.js';

interface Owner {
  readonly library: OrtLibrary;
  readonly value: Pointer;
}

/** The net under `freeTensor`: the value goes when the last array over its memory went. */
const abandoned = new FinalizationRegistry<Owner>(({ library, value }) => library.api.ReleaseValue(value));
const owners = new WeakMap<ArrayBufferLike, Owner>();

/**
 * A tensor that ONNX Runtime made, as arrays over its memory: nothing is copied, and the JavaScript engine counts the
 * memory as its own when it decides whether to collect.
 *
 * @param value is taken over, and released if this throws
 * @throws InferenceError `OUTPUT_TYPE` for elements that JavaScript cannot hold
 */
export function adoptTensor(library: OrtLibrary, value: Pointer, name: string): TensorValue {
  const { api, ffi } = library;
  try {
    const { type, dims } = typeAndShape(library, value, name);
    const bytes = byteLength(type, elementCount(dims));
    if (bytes === 0) {
      api.ReleaseValue(value);
      return { type, dims, data: arrayOver(type, new ArrayBuffer(0)) } as TensorValue;
    }
    const out = new BigUint64Array(1);
    check(api, api.GetTensorMutableData(value, out));
    const buffer = ffi.view(out[0]!, bytes);
    const owner = { library, value };
    owners.set(buffer, owner);
    abandoned.register(buffer, owner, owner);
    return { type, dims, data: arrayOver(type, buffer) } as TensorValue;
  } catch (error) {
    api.ReleaseValue(value);
    throw error;
  }
}

/**
 * Frees the memory of a tensor that a native session handed out, now instead of when it is collected. No array over it
 * may be read afterwards. Does nothing for other tensors, or the second time.
 */
export function freeTensor({ data }: TensorValue): void {
  if (Array.isArray(data)) return;
  const owner = owners.get(data.buffer);
  if (owner === undefined) return;
  owners.delete(data.buffer);
  abandoned.unregister(owner);
  owner.library.api.ReleaseValue(owner.value);
}

function typeAndShape(
  library: OrtLibrary,
  value: Pointer,
  name: string,
): { type: PlainType; dims: readonly number[] } {
  const { api } = library;
  const out = new BigUint64Array(1);
  check(api, api.GetTensorTypeAndShape(value, out));
  const info = out[0]!;
  try {
    const code = new Int32Array(2);
    check(api, api.GetTensorElementType(info, code));
    check(api, api.GetDimensionsCount(info, out));
    const rank = Number(out[0]);
    const dims = new BigInt64Array(Math.max(1, rank));
    check(api, api.GetDimensions(info, dims, rank));
    const type = plainType(code[0]!);
    if (type === undefined) {
      throw new InferenceError('OUTPUT_TYPE', `"${name}" has elements that JavaScript cannot hold.`, {
        expected: 'numbers or booleans',
        found: `ONNX element type ${code[0]}`,
      });
    }
    return { type, dims: Array.from(dims.subarray(0, rank), Number) };
  } finally {
    api.ReleaseTensorTypeAndShapeInfo(info);
  }
}

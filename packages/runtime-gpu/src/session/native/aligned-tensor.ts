import type { TensorValue } from '../../tensor/types.js';
import { elementCount } from '../../tensor/types.js';
import { arrayOver, byteLength, type PlainType } from './element-types.js';
import type { OrtLibrary } from './library.js';

/** Bytes of a cache line, which vector loads should not cross: large arrays of JavaScript's begin 16 behind one. */
export const ALIGNMENT = 64;

/**
 * A tensor of zeros whose first element lies at the beginning of a cache line. What was never written costs nothing, as
 * with any fresh memory.
 */
export function alignedZeros(library: OrtLibrary, type: PlainType, dims: readonly number[]): TensorValue {
  const bytes = byteLength(type, elementCount(dims));
  const buffer = new ArrayBuffer(bytes + ALIGNMENT);
  const address = library.ffi.address(new Uint8Array(buffer));
  const offset = Number(-address & BigInt(ALIGNMENT - 1));
  return { type, dims, data: arrayOver(type, buffer, offset, bytes) } as TensorValue;
}

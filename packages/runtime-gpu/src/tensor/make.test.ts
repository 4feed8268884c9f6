import { describe, expect, it } from 'vitest';
import { asFloat32, integerTensor, zeroTensor } from './make.js';

describe('tensors', () => {
  it('holds ids in the type that the input asks for', () => {
    expect(integerTensor('int64', [1, 2], [1, 2])).toEqual({
      type: 'int64',
      dims: [1, 2],
      data: BigInt64Array.of(1n, 2n),
    });
    expect(integerTensor('int32', [1, 2], [2]).data).toEqual(Int32Array.of(1, 2));
    expect(integerTensor('float16', [1], [1]).data).toEqual(Uint16Array.of(0x3c00));
    expect(() => integerTensor('string', [1], [1])).toThrow(expect.objectContaining({ code: 'INPUT_TYPE' }));
  });

  it('makes empty and zero tensors', () => {
    expect(zeroTensor('float16', [1, 2, 0, 16]).data).toEqual(new Uint16Array(0));
    expect(zeroTensor('uint4', [3]).data).toHaveLength(2);
    expect(zeroTensor('bool', [2, 2]).data).toEqual(new Uint8Array(4));
  });

  it('reads floats of any width', () => {
    expect(asFloat32({ type: 'float16', dims: [1], data: Uint16Array.of(0xc000) })).toEqual(
      Float32Array.of(-2),
    );
    const same = Float32Array.of(1);
    expect(asFloat32({ type: 'float32', dims: [1], data: same })).toBe(same);
    expect(() => asFloat32(zeroTensor('int64', [1]), 'logits')).toThrow(/"logits" holds no floating-point/);
  });
});

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { float16BitsToNumber, float16ToFloat32, float32ToFloat16, numberToFloat16Bits } from './float16.js';

describe('float16', () => {
  it('knows the values of the standard', () => {
    expect(float16BitsToNumber(0x3c00)).toBe(1);
    expect(float16BitsToNumber(0xc000)).toBe(-2);
    expect(float16BitsToNumber(0x7bff)).toBe(65504);
    expect(float16BitsToNumber(0x0400)).toBe(2 ** -14);
    expect(float16BitsToNumber(0x0001)).toBe(2 ** -24);
    expect(float16BitsToNumber(0x7c00)).toBe(Number.POSITIVE_INFINITY);
    expect(float16BitsToNumber(0x7e00)).toBeNaN();
    expect(Object.is(float16BitsToNumber(0x8000), -0)).toBe(true);
  });

  it('gives every number that it can hold back unchanged', () => {
    for (let half = 0; half < 0x10000; half++) {
      const value = float16BitsToNumber(half);
      if (Number.isNaN(value)) expect(numberToFloat16Bits(value) & 0x7fff).toBe(0x7e00);
      else expect(numberToFloat16Bits(value)).toBe(half);
    }
  });

  it('rounds to the nearest, ties to even', () => {
    fc.assert(
      fc.property(fc.double({ min: -70000, max: 70000, noNaN: true }), (value) => {
        const half = numberToFloat16Bits(value);
        const got = float16BitsToNumber(half);
        if (!Number.isFinite(got)) return Math.abs(value) >= 65520;
        const error = Math.abs(got - value);
        const neighbours = [half - 1, half + 1].filter((h) => (h & 0x7fff) <= 0x7bff && h >= 0);
        return neighbours.every((neighbour) => {
          const other = Math.abs(float16BitsToNumber(neighbour & 0xffff) - value);
          return error < other || (error === other && (half & 1) === 0);
        });
      }),
      { numRuns: 2000 },
    );
  });

  it('rounds once where going through 32 bits would round twice', () => {
    // Just above the tie between 1 and 1 + 2^-10, by less than a 32-bit float can tell.
    expect(numberToFloat16Bits(1 + 2 ** -11 + 2 ** -40)).toBe(0x3c01);
    expect(numberToFloat16Bits(1 + 2 ** -11)).toBe(0x3c00);
    expect(numberToFloat16Bits(1 + 3 * 2 ** -11 - 2 ** -40)).toBe(0x3c01);
  });

  it('converts arrays', () => {
    const values = Float32Array.of(0, 1, -1.5, 65504, 1e9, 6e-8);
    expect([...float16ToFloat32(float32ToFloat16(values))]).toEqual([
      0,
      1,
      -1.5,
      65504,
      Number.POSITIVE_INFINITY,
      Math.fround(2 ** -24),
    ]);
  });
});

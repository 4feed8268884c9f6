import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { dequantise } from './dequantise.js';
import { floatToHalf, halfToFloat, toHalf } from './half.js';
import { QUANT_TYPES, quantLayout } from './types.js';

/** Random blocks and their values, computed by the numpy implementation of the `gguf` Python package 0.19. */
const vectors = JSON.parse(
  readFileSync(new URL('../../../../testdata/gguf/dequantised.json', import.meta.url), 'utf8'),
) as Record<string, { bytes: string; float32: string }>;

describe('dequantise', () => {
  it.each(QUANT_TYPES)('%s equals the reference bit for bit', (type) => {
    const vector = vectors[type]!;
    const values = dequantise(type, Buffer.from(vector.bytes, 'base64'));
    const bits = Buffer.from(values.buffer, values.byteOffset, values.byteLength);
    const expected = Buffer.from(vector.float32, 'base64');
    expect(bits.byteLength).toBe(expected.byteLength);
    for (let i = 0; i < values.length; i++) expect(values[i]).toBe(expected.readFloatLE(4 * i));
  });

  it('gives blockSize values for a block of any bytes', () => {
    fc.assert(
      fc.property(fc.constantFrom(...QUANT_TYPES), fc.integer({ min: 0, max: 3 }), (type, blocks) => {
        const { blockBytes, blockSize } = quantLayout(type);
        expect(dequantise(type, new Uint8Array(blocks * blockBytes).fill(0x5a))).toHaveLength(
          blocks * blockSize,
        );
      }),
    );
  });
});

describe('half precision', () => {
  it('goes there and back for every bit pattern', () => {
    for (let bits = 0; bits < 65536; bits++) {
      const value = halfToFloat(bits);
      if (Number.isNaN(value)) expect(Number.isNaN(halfToFloat(floatToHalf(value)))).toBe(true);
      else if (floatToHalf(value) !== bits) expect.fail(`${bits} became ${floatToHalf(value)}`);
    }
  });

  it('rounds to the nearest, ties to even', () => {
    fc.assert(
      fc.property(fc.float({ noNaN: true, min: -65000, max: 65000 }), (value) => {
        const bits = floatToHalf(value);
        const error = Math.abs(halfToFloat(bits) - value);
        for (const other of [bits - 1, bits + 1]) {
          if ((other & 0x7fff) >= 0x7c00 || other < 0) continue;
          const otherError = Math.abs(halfToFloat(other) - value);
          expect(
            error < otherError ||
              (error === otherError && (bits & 1) === 0) ||
              halfToFloat(other) === halfToFloat(bits),
          ).toBe(true);
        }
      }),
      { numRuns: 2000 },
    );
  });

  it('keeps weights finite', () => {
    expect([...toHalf(Float32Array.of(1e6, -1e6, 65504, 1))]).toEqual([0x7bff, 0xfbff, 0x7bff, 0x3c00]);
  });
});

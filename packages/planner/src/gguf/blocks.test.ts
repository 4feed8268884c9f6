import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { blockFormat, isBlockType, readBlocks } from './blocks.js';
import { QUANT_TYPES } from './types.js';

const vectors = JSON.parse(
  readFileSync(new URL('../../../../testdata/gguf/dequantised.json', import.meta.url), 'utf8'),
) as Record<string, { bytes: string; float32: string }>;

describe('readBlocks', () => {
  it.each(QUANT_TYPES.filter(isBlockType))('%s: codes, scales and minima give the values back', (type) => {
    const expected = Buffer.from(vectors[type]!.float32, 'base64');
    const { codes, scales, minima, zero, blockSize } = readBlocks(
      type,
      Buffer.from(vectors[type]!.bytes, 'base64'),
    );
    const { bits, hasMinimum } = blockFormat(type);
    expect(minima !== undefined).toBe(hasMinimum);
    expect(codes).toHaveLength(expected.byteLength / 4);
    // What the operators take for zero is the middle of the codes; formats with a minimum count from 0.
    expect(zero).toBe(hasMinimum ? 0 : 1 << (bits - 1));
    for (const [i, code] of codes.entries()) {
      const block = Math.floor(i / blockSize);
      expect(code).toBeLessThan(1 << bits);
      const value = scales[block]! * (code - zero) + (minima?.[block] ?? 0);
      expect(Math.abs(value - expected.readFloatLE(4 * i))).toBeLessThanOrEqual(1e-6);
    }
  });
});

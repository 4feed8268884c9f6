import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { decodeOffsets, encodeOffsets, type OffsetBlocks, zeroPointBytes } from './digits.js';
import { layoutOfProduct, type OffsetLayout, offsetLayout } from './layout.js';

interface Case {
  readonly layout: OffsetLayout;
  readonly outputs: number;
  readonly matrix: OffsetBlocks;
}

const cases: fc.Arbitrary<Case> = fc
  .record({
    bits: fc.constantFrom(4 as const, 8 as const),
    blockSize: fc.constantFrom(16, 32),
    blocks: fc.integer({ min: 1, max: 40 }),
    outputs: fc.integer({ min: 1, max: 3 }),
    seed: fc.integer({ min: 1, max: 2 ** 31 - 1 }),
    /** Offsets over scales: as far as zero points reach, or farther. */
    reach: fc.constantFrom(0.4, 5, 100),
    constants: fc.boolean(),
  })
  .map(({ bits, blockSize, blocks, outputs, seed, reach, constants }) => {
    const layout = offsetLayout({ inFeatures: blocks * blockSize, bits, blockSize });
    const random = generator(seed);
    const count = outputs * blocks;
    const scales = Float32Array.from({ length: count }, () =>
      constants && random() < 0.2 ? 0 : 0.001 + random(),
    );
    const offsets = scales.map((scale) => (random() * 2 - 1) * reach * (scale === 0 ? 1 : scale));
    const codes = Uint8Array.from({ length: (count * blockSize * bits) / 8 }, () =>
      Math.floor(random() * 256),
    );
    return { layout, outputs, matrix: { codes, scales, offsets } };
  });

function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 48_271) >>> 0) % 2_147_483_647;
    return state / 2_147_483_647;
  };
}

/** What is stored for one place: `code · scale` without zero point or offset. */
function codeAt(codes: Uint8Array, bits: number, index: number): number {
  const byte = codes[(index * bits) >> 3] as number;
  return bits === 8 ? byte : (byte >> (4 * (index & 1))) & 15;
}

/** The matrix by its definition, `[outputs][inFeatures]`. */
function valuesOf({ layout, outputs, matrix }: Case): Float64Array[] {
  const { inFeatures, blockSize, blocks, bits } = layout;
  return Array.from({ length: outputs }, (_, output) =>
    Float64Array.from({ length: inFeatures }, (_, k) => {
      const block = output * blocks + Math.floor(k / blockSize);
      const code = codeAt(matrix.codes, bits, output * inFeatures + k);
      const { scales, offsets } = matrix;
      return (code - 2 ** (bits - 1)) * (scales[block] as number) + (offsets[block] as number);
    }),
  );
}

/** What `MatMulNBits` would make of one-hot inputs with the sums of their blocks, `[outputs][inFeatures]`. */
function productOf({ layout, outputs, matrix }: Case): Float64Array[] {
  const { inFeatures, features, totalBlocks, blockSize, bits, digits, digitFeatures } = layout;
  const product = encodeOffsets(matrix, outputs, layout);
  const weight = (output: number, column: number) => {
    const block = Math.floor(column / blockSize);
    const bytes = product.zeroPoints.subarray(output * zeroPointBytes(layout));
    const zero = codeAt(bytes, bits, block);
    const code = codeAt(product.codes, bits, output * features + column);
    return (code - zero) * (product.scales[output * totalBlocks + block] as number);
  };
  return Array.from({ length: outputs }, (_, output) =>
    Float64Array.from({ length: inFeatures }, (_, k) => {
      const block = Math.floor(k / blockSize);
      let value = weight(output, k);
      for (let digit = 0; digit < digits; digit++)
        value += weight(output, inFeatures + digit * digitFeatures + block);
      return value;
    }),
  );
}

/**
 * By how much the squares of what blocks lose, in their own steps, exceed what they would with scales that reach the
 * largest rest after the integer zero point; over each run of blocks that share scales.
 */
function excess(example: Case, expected: readonly Float64Array[], found: readonly Float64Array[]): number {
  const { layout, matrix, outputs } = example;
  const { blocks, blockSize, bits, digits } = layout;
  const centre = 2 ** (bits - 1);
  let worst = Number.NEGATIVE_INFINITY;
  for (let output = 0; output < outputs; output++) {
    for (let start = 0; start < blocks; start += blockSize) {
      const run = Array.from({ length: Math.min(blockSize, blocks - start) }, (_, i) => start + i);
      const rests = run.map((block) => {
        const at = output * blocks + block;
        const [scale, offset] = [matrix.scales[at] as number, matrix.offsets[at] as number];
        if (scale === 0) return 0;
        const zero = Math.max(0, Math.min(2 * centre - 1, Math.round(centre - offset / scale)));
        return Math.abs(offset + (zero - centre) * scale);
      });
      const bound = Math.max(...rests) / (2 ** bits - 1) ** digits;
      let [lost, allowed] = [0, 0];
      for (const block of run) {
        const step = (matrix.scales[output * blocks + block] as number) || 1;
        for (let k = block * blockSize; k < (block + 1) * blockSize; k++) {
          const value = (expected[output] as Float64Array)[k] as number;
          const apart = Math.abs(((found[output] as Float64Array)[k] as number) - value);
          const float = 1e-5 * (1 + Math.abs(value));
          lost += (Math.max(0, apart - float) / step) ** 2;
          allowed += (bound / step) ** 2;
        }
      }
      worst = Math.max(worst, lost - allowed * 1.001);
    }
  }
  return worst;
}

describe('encodeOffsets', () => {
  it('multiplies as the matrix does, to the last step of the digits', () => {
    fc.assert(
      fc.property(cases, (example) => {
        expect(excess(example, valuesOf(example), productOf(example))).toBeLessThanOrEqual(0);
      }),
    );
  });

  it('gives back what it was given', () => {
    fc.assert(
      fc.property(cases, (example) => {
        const { layout, outputs, matrix } = example;
        const back = decodeOffsets(encodeOffsets(matrix, outputs, layout), outputs, layout);
        const found = valuesOf({ layout, outputs, matrix: back });
        expect(excess(example, valuesOf(example), found)).toBeLessThanOrEqual(0);
      }),
    );
  });

  it('lets no block pay for a neighbour whose steps are a hundred times as large', () => {
    const layout = offsetLayout({ inFeatures: 18 * 32, bits: 4, blockSize: 32 });
    const random = generator(3);
    const scales = Float32Array.from({ length: 18 }, (_, block) => (block === 5 ? 100 : 0.5 + random()));
    const offsets = scales.map((scale) => scale * (random() * 14 - 7));
    const matrix = { codes: new Uint8Array(18 * 16).fill(0x88), scales, offsets };
    const back = decodeOffsets(encodeOffsets(matrix, 1, layout), 1, layout);
    for (const [block, value] of back.offsets.entries()) {
      const lost = Math.abs(value - (offsets[block] as number)) / (scales[block] as number);
      expect(lost).toBeLessThan(1 / 10);
    }
  });

  it('gives the padding of the sums no weight', () => {
    const layout = offsetLayout({ inFeatures: 3 * 32, bits: 4, blockSize: 32 });
    const matrix = {
      codes: new Uint8Array(48),
      scales: Float32Array.of(1, 2, 0),
      offsets: Float32Array.of(0.3, -4.9, 7),
    };
    const { codes } = encodeOffsets(matrix, 1, layout);
    for (const digit of [0, 1]) {
      const at = (layout.inFeatures + digit * layout.digitFeatures) / 2;
      // Three sums take a byte and a half; the rest are zeros.
      expect((codes[at + 1] as number) >> 4).toBe(8);
      expect([...codes.subarray(at + 2, at + 16)]).toEqual(Array(14).fill(0x88));
    }
  });

  it('loses no more than 1/450 of a step where zero points reach', () => {
    const layout = offsetLayout({ inFeatures: 64 * 32, bits: 4, blockSize: 32 });
    const random = generator(7);
    const scales = new Float32Array(64).fill(1);
    const offsets = Float32Array.from({ length: 64 }, () => random() * 14 - 7);
    const matrix = { codes: new Uint8Array(64 * 16).fill(0x88), scales, offsets };
    const back = decodeOffsets(encodeOffsets(matrix, 1, layout), 1, layout);
    const worst = Math.max(...back.offsets.map((value, i) => Math.abs(value - (offsets[i] as number))));
    expect(worst).toBeLessThanOrEqual(1 / 450 + 1e-6);
    expect(worst).toBeGreaterThan(0);
  });
});

describe('layoutOfProduct', () => {
  it('finds the layout by the inputs of its product', () => {
    const bits = fc.constantFrom(4 as const, 8 as const);
    const sizes = fc.constantFrom(16, 32, 64, 128);
    fc.assert(
      fc.property(bits, sizes, fc.integer({ min: 1, max: 600 }), (bits, blockSize, blocks) => {
        const layout = offsetLayout({ inFeatures: blocks * blockSize, bits, blockSize });
        expect(layoutOfProduct(layout.features, bits, blockSize)).toEqual(layout);
      }),
    );
  });

  it('finds none for other numbers of inputs, bits and blocks', () => {
    expect(layoutOfProduct(1120, 4, 32)).toBeUndefined();
    expect(layoutOfProduct(640, 4, 32)?.inFeatures).toBe(576);
    expect(layoutOfProduct(641, 4, 32)).toBeUndefined();
    expect(layoutOfProduct(640, 2, 32)).toBeUndefined();
  });
});

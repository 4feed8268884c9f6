import { asFloat32 } from '@cqil/runtime-gpu';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { floatToHalf, halfToFloat, toHalf } from '../gguf/half.js';
import { DataType, Model, makeNode, makeValueInfo, Tensor } from '../onnx/index.js';
import { withVariant } from '../variant/index.js';
import { type BlockOptions, dequantiseBlocks, quantiseBlocks } from './index.js';

const options = fc.record({
  bits: fc.constantFrom(4, 8),
  blockSize: fc.constantFrom(16, 32, 64),
  blocks: fc.integer({ min: 1, max: 3 }),
  outFeatures: fc.integer({ min: 1, max: 5 }),
  scaleType: fc.constantFrom('float32', 'float16'),
});

/** Matrices of one magnitude, from tiny to large, so that blocks of all scales come up. */
const matrices = options.chain(({ blocks, ...rest }) => {
  const shape: Required<BlockOptions> = { ...rest, inFeatures: blocks * rest.blockSize };
  const length = shape.inFeatures * shape.outFeatures;
  return fc.record({
    shape: fc.constant(shape),
    exponent: fc.integer({ min: -30, max: 10 }),
    values: fc.array(fc.float({ min: -1, max: 1, noNaN: true }), { minLength: length, maxLength: length }),
  });
});

describe('quantiseBlocks', () => {
  it('is never further from a value than half a step', () => {
    fc.assert(
      fc.property(matrices, ({ shape, exponent, values }) => {
        const weight = Float32Array.from(values, (value) => value * 2 ** exponent);
        const blocks = quantiseBlocks(weight, shape);
        const back = dequantiseBlocks(blocks);
        const { outFeatures, inFeatures, blockSize, bits, scaleType } = shape;
        for (let i = 0; i < weight.length; i++) {
          const [k, column] = [Math.floor(i / outFeatures), i % outFeatures];
          const step = blocks.scales[column * (inFeatures / blockSize) + Math.floor(k / blockSize)] as number;
          // Half the smallest float16 where even that is too large for a step.
          const limit = step === 0 ? 2 ** -25 * 2 ** (bits - 1) : step * (0.5 + 1e-4);
          expect(Math.abs((back[i] as number) - (weight[i] as number))).toBeLessThanOrEqual(limit);
          if (scaleType === 'float16') expect(halfToFloat(floatToHalf(step))).toBe(step);
        }
      }),
    );
  });

  it('gives back what it made', () => {
    fc.assert(
      fc.property(matrices, ({ shape, exponent, values }) => {
        const weight = Float32Array.from(values, (value) => value * 2 ** Math.max(exponent, 0));
        const once = dequantiseBlocks(quantiseBlocks(weight, shape));
        const twice = dequantiseBlocks(quantiseBlocks(once, { ...shape, scaleType: 'float32' }));
        const limit = 1e-6 * 2 ** Math.max(exponent, 0);
        for (const [i, value] of once.entries()) {
          expect(Math.abs((twice[i] as number) - value)).toBeLessThanOrEqual(limit);
        }
      }),
    );
  });

  it('does not depend on anything but the values', () => {
    const weight = Float32Array.from({ length: 96 }, (_, i) => Math.sin(i));
    const shape = { inFeatures: 32, outFeatures: 3, bits: 4, blockSize: 16 } as const;
    expect(quantiseBlocks(weight, shape)).toEqual(quantiseBlocks(weight.slice(), shape));
  });

  it('packs two codes of 4 bits in a byte, the first low', () => {
    const weight = Float32Array.from({ length: 16 }, (_, i) => (i < 8 ? i : 0));
    const { codes, scales } = quantiseBlocks(weight, {
      inFeatures: 16,
      outFeatures: 1,
      bits: 4,
      blockSize: 16,
    });
    expect([...scales]).toEqual([1]);
    expect([...codes]).toEqual([0x98, 0xba, 0xdc, 0xfe, 0x88, 0x88, 0x88, 0x88]);
  });

  it('keeps a block of zeros', () => {
    const blocks = quantiseBlocks(new Float32Array(64), {
      inFeatures: 32,
      outFeatures: 2,
      bits: 8,
      blockSize: 32,
    });
    expect(dequantiseBlocks(blocks).every((value) => value === 0)).toBe(true);
  });

  it.each([
    ['a size that is no multiple of the block', 40, 40 * 2, 32],
    ['another number of values', 32, 63, 32],
    ['a block size that no kernel has', 24, 48, 24],
  ])('refuses %s', (_, inFeatures, length, blockSize) => {
    expect(() =>
      quantiseBlocks(new Float32Array(length), { inFeatures, outFeatures: 2, bits: 8, blockSize }),
    ).toThrow(expect.objectContaining({ code: 'QUANTISE_SHAPE' }));
  });

  it.each([Number.NaN, Number.POSITIVE_INFINITY, 1e10])('refuses %s', (value) => {
    const weight = new Float32Array(32).fill(value, 7, 8);
    expect(() =>
      quantiseBlocks(weight, {
        inFeatures: 32,
        outFeatures: 1,
        bits: 8,
        blockSize: 32,
        scaleType: 'float16',
      }),
    ).toThrow(expect.objectContaining({ code: 'QUANTISE_RANGE' }));
  });
});

describe.each([
  ['float32', 8, 2e-6],
  ['float32', 4, 2e-6],
  ['float16', 8, 2e-3],
  ['float16', 4, 2e-3],
] as const)('MatMulNBits of ONNX Runtime with %s and %i bits', (scaleType, bits, limit) => {
  it.each([16, 32, 128])('multiplies by what blocks of %i stand for', async (blockSize) => {
    const [inFeatures, outFeatures, rows] = [256, 24, 3];
    const weight = Float32Array.from({ length: inFeatures * outFeatures }, (_, i) => Math.sin(i * 1.3));
    const blocks = quantiseBlocks(weight, { inFeatures, outFeatures, bits, blockSize, scaleType });
    const type = scaleType === 'float32' ? DataType.FLOAT : DataType.FLOAT16;
    const model = Model.create({ producer: 'test', irVersion: 8, opsets: { '': 18, 'com.microsoft': 1 } });
    const { graph } = model;
    graph.inputs.push(makeValueInfo('x', type, ['rows', inFeatures]));
    graph.outputs.push(makeValueInfo('y', type, ['rows', outFeatures]));
    const perColumn = inFeatures / blockSize;
    const stored = scaleType === 'float32' ? blocks.scales : toHalf(blocks.scales);
    const shape = [outFeatures, perColumn, (blockSize * bits) / 8];
    graph.addInitializer(Tensor.create('codes', DataType.UINT8, shape, blocks.codes));
    graph.addInitializer(Tensor.create('scales', type, [outFeatures, perColumn], stored));
    const attributes = {
      K: { int: inFeatures },
      N: { int: outFeatures },
      bits: { int: bits },
      block_size: { int: blockSize },
    };
    graph.addNode(
      makeNode('MatMulNBits', ['x', 'codes', 'scales'], ['y'], {
        name: 'product',
        domain: 'com.microsoft',
        attributes,
      }),
    );
    const x = Float32Array.from({ length: rows * inFeatures }, (_, i) => Math.round(Math.cos(i) * 64) / 64);
    const dims = [rows, inFeatures];
    const feed =
      scaleType === 'float32'
        ? ({ type: 'float32', dims, data: x } as const)
        : ({ type: 'float16', dims, data: toHalf(x) } as const);
    const found = await withVariant(model, { threads: 1 }, async (session) =>
      asFloat32((await session.run({ x: feed })).y!),
    );
    const matrix = dequantiseBlocks(blocks);
    for (let row = 0; row < rows; row++) {
      for (let j = 0; j < outFeatures; j++) {
        let [sum, size] = [0, 0];
        for (let k = 0; k < inFeatures; k++) {
          const product = x[row * inFeatures + k]! * matrix[k * outFeatures + j]!;
          sum += product;
          size += Math.abs(product);
        }
        expect(Math.abs(found[row * outFeatures + j]! - sum)).toBeLessThanOrEqual(limit * size);
      }
    }
  });
});

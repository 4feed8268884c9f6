import { asFloat32 } from '@cqil/runtime-gpu';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { floatToHalf, halfToFloat, toHalf } from '../gguf/half.js';
import { DataType, Model, makeNode, makeValueInfo } from '../onnx/index.js';
import { Products } from '../recover/products.js';
import { Names } from '../rewrite/names.js';
import { withVariant } from '../variant/index.js';
import { dequantiseBlocks, type QuantisedBlocks } from './blocks.js';
import { roundCompensated } from './compensate.js';
import { addBlocks, blockLookup, blockProduct } from './emit.js';
import { upperFactors } from './factor.js';
import { GridSearch } from './grid.js';
import { type RoundOptions, roundToNearest } from './round.js';

const products = new Products(1);
afterAll(() => products.dispose());

/** Numbers that look random and are the same in every run. */
function numbers(count: number, seed: number): Float32Array {
  let state = seed * 2654435761 + 1;
  return Float32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    return state / 2 ** 31;
  });
}

/** XᵀX of inputs that go together, as activations do. */
function gramOf(features: number, tokens: number, seed: number): Float64Array {
  const common = numbers(tokens * 4, seed);
  const raw = numbers(tokens * features, seed + 1);
  const gram = new Float64Array(features * features);
  for (let token = 0; token < tokens; token++) {
    const x = Float64Array.from({ length: features }, (_, i) => {
      const shared = common[token * 4 + (i % 4)]! + 0.5 * common[token * 4 + ((i >> 2) % 4)]!;
      return (shared + 0.3 * raw[token * features + i]!) * (1 + (i % 7));
    });
    for (let i = 0; i < features; i++)
      for (let j = 0; j < features; j++) gram[i * features + j]! += x[i]! * x[j]!;
  }
  return gram;
}

/** tr (W − Ŵ)ᵀ H (W − Ŵ) */
function movedBy(gram: Float64Array, weight: Float32Array, blocks: QuantisedBlocks): number {
  const { inFeatures: n, outFeatures: width } = blocks;
  const back = dequantiseBlocks(blocks);
  let sum = 0;
  for (let column = 0; column < width; column++) {
    const e = Float64Array.from(
      { length: n },
      (_, k) => weight[k * width + column]! - back[k * width + column]!,
    );
    for (let i = 0; i < n; i++) for (let j = 0; j < n; j++) sum += e[i]! * gram[i * n + j]! * e[j]!;
  }
  return sum;
}

const shapes = fc.record({
  bits: fc.constantFrom(4, 8),
  blockSize: fc.constantFrom(16, 32),
  blocks: fc.integer({ min: 1, max: 3 }),
  outFeatures: fc.integer({ min: 1, max: 5 }),
  scaleType: fc.constantFrom('float32', 'float16'),
  asymmetric: fc.boolean(),
});
const problems = fc
  .record({ shape: shapes, seed: fc.integer({ min: 0, max: 1e6 }) })
  .map(({ shape, seed }) => {
    const { blocks, ...rest } = shape;
    const options: Required<RoundOptions> = { ...rest, inFeatures: blocks * rest.blockSize };
    const weight = numbers(options.inFeatures * options.outFeatures, seed).map((v) => v * Math.abs(v));
    return { options, weight, seed };
  });

describe('roundToNearest', () => {
  it('leaves no value further off than half a step, but for those outside the range', () => {
    fc.assert(
      fc.property(problems, ({ options, weight }) => {
        const blocks = roundToNearest(weight, options);
        const back = dequantiseBlocks(blocks);
        const { outFeatures, inFeatures, blockSize, bits, scaleType } = options;
        for (const [i, value] of weight.entries()) {
          const [k, column] = [Math.floor(i / outFeatures), i % outFeatures];
          const block = column * (inFeatures / blockSize) + Math.floor(k / blockSize);
          const [scale, zero] = [blocks.scales[block]!, blocks.zeroPoints?.[block] ?? 2 ** (bits - 1)];
          const ends = [-zero * scale, (2 ** bits - 1 - zero) * scale] as const;
          const within = value >= ends[0] && value <= ends[1];
          const nearest = within ? value : value < ends[0] ? ends[0] : ends[1];
          expect(Math.abs(back[i]! - nearest)).toBeLessThanOrEqual(scale * 0.5001);
          if (scaleType === 'float16') expect(halfToFloat(floatToHalf(scale))).toBe(scale);
        }
      }),
    );
  });

  it('is never worse than the plain range of the values', () => {
    fc.assert(
      fc.property(problems, ({ options, weight }) => {
        const { inFeatures, outFeatures, bits, blockSize, asymmetric } = options;
        if (!asymmetric || options.scaleType === 'float16') return;
        const back = dequantiseBlocks(roundToNearest(weight, options));
        let [found, plain] = [0, 0];
        for (let column = 0; column < outFeatures; column++) {
          for (let at = 0; at < inFeatures; at += blockSize) {
            const values = Array.from(
              { length: blockSize },
              (_, i) => weight[(at + i) * outFeatures + column]!,
            );
            const [low, high] = [Math.min(0, ...values), Math.max(0, ...values)];
            const scale = Math.fround((high - low) / (2 ** bits - 1));
            const zero = Math.round(-low / scale);
            for (const [i, value] of values.entries()) {
              const code = Math.max(0, Math.min(2 ** bits - 1, Math.round(value / scale) + zero));
              plain += (value - (code - zero) * scale) ** 2;
              found += (value - back[(at + i) * outFeatures + column]!) ** 2;
            }
          }
        }
        expect(found).toBeLessThanOrEqual(plain * 1.0001 + 1e-12);
      }),
    );
  });

  it('finds a grid that the values lie on', () => {
    const search = new GridSearch({ bits: 4, asymmetric: true, scaleType: 'float32' });
    const values = Float64Array.from({ length: 32 }, (_, i) => ((i % 16) - 5) * 0.25);
    search.find(values, new Float64Array(32).fill(1));
    expect([search.scale, search.zero]).toEqual([0.25, 5]);
  });

  it('keeps zeros', () => {
    const options = { inFeatures: 32, outFeatures: 2, bits: 4, blockSize: 32, asymmetric: true } as const;
    expect(dequantiseBlocks(roundToNearest(new Float32Array(64), options)).every((v) => v === 0)).toBe(true);
  });

  it.each([Number.NaN, Number.POSITIVE_INFINITY, -1e6])('refuses %s', (value) => {
    const weight = new Float32Array(32).fill(value, 3, 4);
    const shape = { inFeatures: 32, outFeatures: 1, bits: 4, blockSize: 32 } as const;
    const options = { ...shape, asymmetric: true, scaleType: 'float16' } as const;
    expect(() => roundToNearest(weight, options)).toThrow(
      expect.objectContaining({ code: 'QUANTISE_RANGE' }),
    );
  });
});

describe('upperFactors', () => {
  it.each([1, 7, 130, 200])('factors a matrix of %i', async (n) => {
    const data = gramOf(n, 2 * n, n);
    const { upper, diagonal } = await upperFactors(products, { rows: n, columns: n, data }, 1);
    const size = data[0]! + 1;
    for (let i = 0; i < n; i += 1 + Math.floor(n / 20)) {
      for (let j = 0; j < n; j += 1 + Math.floor(n / 20)) {
        let sum = 0;
        for (let k = Math.max(i, j); k < n; k++) sum += upper[i * n + k]! * diagonal[k]! * upper[j * n + k]!;
        expect(Math.abs(sum - data[i * n + j]! - (i === j ? 1 : 0))).toBeLessThan(1e-9 * size * n);
      }
    }
    expect(upper[0]).toBe(1);
  });

  it('refuses what is not positive', async () => {
    const matrix = { rows: 2, columns: 2, data: Float64Array.of(1, 2, 2, 1) };
    await expect(upperFactors(products, matrix, 0)).rejects.toMatchObject({ code: 'MATRIX_NOT_POSITIVE' });
  });
});

describe('roundCompensated', () => {
  it('moves outputs less than rounding to nearest does', async () => {
    let [found, nearest] = [0, 0];
    for (let seed = 0; seed < 12; seed++) {
      const options = {
        inFeatures: 64,
        outFeatures: 6,
        bits: 4,
        blockSize: seed % 2 === 0 ? 16 : 32,
        asymmetric: seed % 3 !== 0,
      } as const;
      const weight = numbers(64 * 6, seed + 100);
      const gram = gramOf(64, 200, seed);
      const plain = movedBy(gram, weight, roundToNearest(weight, options));
      const moved = movedBy(gram, weight, await roundCompensated(products, weight, gram, options));
      expect(moved).toBeLessThan(plain);
      found += moved;
      nearest += plain;
    }
    expect(found).toBeLessThan(0.5 * nearest);
  });

  it('is rounding to nearest where inputs are independent', async () => {
    const options = { inFeatures: 64, outFeatures: 3, bits: 4, blockSize: 32, asymmetric: true } as const;
    const weight = numbers(64 * 3, 5);
    const gram = new Float64Array(64 * 64);
    for (let k = 0; k < 64; k++) gram[k * 64 + k] = 2;
    expect(await roundCompensated(products, weight, gram, options)).toEqual(roundToNearest(weight, options));
  });

  it('goes across the borders of what is carried over at once', async () => {
    const options = { inFeatures: 320, outFeatures: 3, bits: 4, blockSize: 32, asymmetric: true } as const;
    const weight = numbers(320 * 3, 9);
    const gram = gramOf(320, 640, 3);
    const first = await roundCompensated(products, weight, gram, options);
    expect(await roundCompensated(products, weight, gram, options)).toEqual(first);
    const plain = movedBy(gram, weight, roundToNearest(weight, options));
    expect(movedBy(gram, weight, first)).toBeLessThan(0.6 * plain);
  });

  it('bears inputs that are always zero', async () => {
    const options = { inFeatures: 32, outFeatures: 2, bits: 4, blockSize: 32, asymmetric: true } as const;
    const weight = numbers(64, 2);
    const blocks = await roundCompensated(products, weight, new Float64Array(32 * 32), options);
    expect(blocks).toEqual(roundToNearest(weight, options));
  });
});

describe.each([
  [4, true, 'float32', 2e-6],
  [4, false, 'float32', 2e-6],
  [8, true, 'float32', 2e-6],
  [8, false, 'float32', 2e-6],
  [4, true, 'float16', 2e-3],
] as const)('ONNX Runtime with %i bits, zero points %s, %s', (bits, asymmetric, scaleType, limit) => {
  const type = scaleType === 'float32' ? DataType.FLOAT : DataType.FLOAT16;
  const create = () => Model.create({ producer: 'test', irVersion: 8, opsets: { '': 18 } });

  it.each([
    [32, 96],
    [16, 144],
  ])('multiplies by what blocks of %i stand for', async (blockSize, inFeatures) => {
    const [outFeatures, rows] = [7, 3];
    const weight = numbers(inFeatures * outFeatures, bits).map((v, i) => v + (i % 3 === 0 ? 0.7 : 0));
    const blocks = roundToNearest(weight, {
      inFeatures,
      outFeatures,
      bits,
      blockSize,
      asymmetric,
      scaleType,
    });
    const model = create();
    const { graph } = model;
    graph.inputs.push(makeValueInfo('x', type, ['rows', inFeatures]));
    graph.outputs.push(makeValueInfo('y', type, ['rows', outFeatures]));
    const node = makeNode('MatMul', ['x', 'w'], ['y'], { name: '/layer/MatMul' });
    const names = new Names(model);
    const stored = addBlocks(model, names, 'layer', blocks);
    graph.nodes = blockProduct(model, names, { node, input: 'x', bias: undefined }, blocks, stored, 1);
    const x = numbers(rows * inFeatures, 77).map((v) => Math.round(v * 64) / 64);
    const data = scaleType === 'float32' ? x : toHalf(x);
    const found = await withVariant(model, { threads: 1 }, async (session) => {
      const feed = { type: scaleType, dims: [rows, inFeatures], data } as never;
      return asFloat32((await session.run({ x: feed })).y!);
    });
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

  it('looks up the rows that blocks stand for', async () => {
    const [rows, width, blockSize] = [10, 96, 32];
    const table = numbers(rows * width, 3 + bits);
    const turned = Float32Array.from(table, (_, i) => table[(i % rows) * width + Math.floor(i / rows)]!);
    const options = { inFeatures: width, outFeatures: rows, bits, blockSize, asymmetric, scaleType };
    const blocks = roundToNearest(turned, options);
    const model = create();
    const { graph } = model;
    graph.inputs.push(makeValueInfo('ids', DataType.INT64, ['count']));
    graph.outputs.push(makeValueInfo('y', type, ['count', width]));
    const node = makeNode('Gather', ['table', 'ids'], ['y'], { name: '/embed/Gather' });
    const names = new Names(model);
    const stored = addBlocks(model, names, 'embed', blocks);
    graph.nodes = blockLookup(model, names, { node, rows, width }, blocks, stored);
    const ids = BigInt64Array.of(3n, 0n, 9n, 3n);
    const found = await withVariant(model, { threads: 1 }, async (session) =>
      asFloat32((await session.run({ ids: { type: 'int64', dims: [4], data: ids } })).y!),
    );
    const matrix = dequantiseBlocks(blocks);
    for (const [at, id] of ids.entries()) {
      for (let k = 0; k < width; k++) {
        expect(found[at * width + k]!).toBeCloseTo(
          matrix[k * rows + Number(id)]!,
          scaleType === 'float32' ? 6 : 2,
        );
      }
    }
  });
});

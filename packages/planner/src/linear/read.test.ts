import { describe, expect, it } from 'vitest';
import { analyze } from '../anatomy/index.js';
import { halfTable } from '../gguf/half.js';
import {
  type AttributeValue,
  DataType,
  intAttribute,
  Model,
  makeNode,
  makeValueInfo,
  type Node,
  readModel,
  Tensor,
} from '../onnx/index.js';
import { type LinearMap, linearMaps, type MapMatrix, readMatrix } from './index.js';
import { DECODERS, distance, testdata } from './testing/fixtures.js';

const session = { threads: 1 } as const;

async function numbers(model: Model, name: string | undefined): Promise<Float32Array> {
  const tensor = model.graph.initializers.get(name ?? '');
  if (tensor === undefined) throw new Error(`"${name}" is no weight`);
  const { buffer } = Uint8Array.from(await tensor.bytes());
  switch (tensor.dataType) {
    case DataType.FLOAT:
      return new Float32Array(buffer);
    case DataType.FLOAT16:
      return Float32Array.from(new Uint16Array(buffer), (half) => halfTable()[half] as number);
    case DataType.INT8:
      return Float32Array.from(new Int8Array(buffer));
    default:
      return Float32Array.from(new Uint8Array(buffer));
  }
}

/** `[rows, columns]` → `[columns, rows]` */
function transposed(values: Float32Array, columns: number): Float32Array {
  const rows = values.length / columns;
  return Float32Array.from(values, (_, i) => values[(i % rows) * columns + Math.floor(i / rows)] as number);
}

/** The matrix of a product as it is stored, by the operator's definition. */
async function stored(model: Model, node: Node, map: LinearMap): Promise<Float32Array> {
  const { inFeatures, outFeatures } = map;
  switch (node.opType) {
    case 'MatMul':
      return numbers(model, node.input[1]);
    case 'Gemm': {
      const weight = await numbers(model, node.input[1]);
      return intAttribute(node, 'transB') === 1 ? transposed(weight, inFeatures) : weight;
    }
    case 'MatMulInteger': {
      const codes = await numbers(model, node.input[1]);
      const zero = await numbers(model, node.input[3]);
      const scale = await numbers(model, node.input[1]!.replace(/_quantized$/, '_scale'));
      return codes.map((code) => (code - (zero[0] as number)) * (scale[0] as number));
    }
    case 'MatMulNBits': {
      const codes = await numbers(model, node.input[1]);
      const scales = await numbers(model, node.input[2]);
      const blockSize = intAttribute(node, 'block_size') as number;
      const blocks = Math.ceil(inFeatures / blockSize);
      return Float32Array.from({ length: inFeatures * outFeatures }, (_, i) => {
        const [k, j] = [Math.floor(i / outFeatures), i % outFeatures];
        const at = j * blocks + Math.floor(k / blockSize);
        const byte = codes[at * (blockSize / 2) + ((k % blockSize) >> 1)] as number;
        return (((byte >> (4 * (k & 1))) & 15) - 8) * (scales[at] as number);
      });
    }
    default:
      throw new Error(node.opType);
  }
}

const PRODUCTS = new Set(['MatMul', 'Gemm', 'MatMulInteger', 'MatMulNBits']);

describe.each(DECODERS)('%s', (file, storage) => {
  it('gives the matrices that are stored, and the biases', async () => {
    const model = await readModel(testdata(file));
    const { maps } = linearMaps(model, analyze(model));
    for (const map of maps.filter(({ layer }) => layer === 1)) {
      const { weight, bias, exact } = await readMatrix(model, map, session);
      const product = map.nodes.find((node) => PRODUCTS.has(node.opType))!;
      let expected = await stored(model, product, map);
      if (file.includes('granite') && (map.role === 'o' || map.role === 'down')) {
        // The residual multiplier, 0.6 by the model's configuration, is a part of the map.
        const factor = weight[0]! / expected[0]!;
        expect(factor).toBeCloseTo(0.6, 5);
        expected = expected.map((value) => value * factor);
      }
      const largest = Math.max(...expected.map(Math.abs));
      expect(largest).toBeGreaterThan(0);
      // Bit for bit where nothing is added or rounded on the way.
      const plain = !map.hasBias && storage === 'float32' && !file.includes('granite');
      if (plain) expect(weight).toEqual(expected);
      else
        expect(distance(weight, expected)).toBeLessThanOrEqual(
          largest * (storage === 'float16' ? 1e-3 : 1e-5),
        );
      // Level 4 lets the product round its inputs to 8 bits.
      expect(exact).toBe(storage !== 'int8' && intAttribute(product, 'accuracy_level') !== 4);
      expect(bias !== undefined).toBe(map.hasBias);
      if (bias === undefined) continue;
      const sum = map.nodes.find((node) => node.opType === 'Add');
      const name =
        sum === undefined ? product.input[2] : sum.input.find((input) => model.graph.initializers.has(input));
      expect(distance(bias, await numbers(model, name))).toBe(0);
    }
  });
});

const [IN, OUT] = [40, 6];

type AddNode = (
  op: string,
  inputs: string[],
  output: string,
  more?: string[],
  attributes?: Readonly<Record<string, AttributeValue>>,
) => void;
type Weights = readonly (readonly [name: string, dataType: number, dims: number[], data: ArrayBufferView])[];

/** Reads a model that is one map from x to y. */
async function read(build: (node: AddNode) => void, weights: Weights = []): Promise<MapMatrix> {
  const model = Model.create({ producer: 'test', irVersion: 10, opsets: { '': 21, 'com.microsoft': 1 } });
  const { graph } = model;
  graph.inputs.push(makeValueInfo('x', DataType.FLOAT, ['batch', 'seq', IN]));
  graph.outputs.push(makeValueInfo('y', DataType.FLOAT, ['batch', 'seq', OUT]));
  const values = Float32Array.from({ length: IN * OUT }, (_, i) => Math.sin(i));
  graph.addInitializer(Tensor.create('w', DataType.FLOAT, [IN, OUT], values));
  graph.addInitializer(Tensor.create('b', DataType.FLOAT, [OUT], Float32Array.of(1, 2, 3, 4, 5, 6)));
  graph.addInitializer(Tensor.create('step', DataType.FLOAT, [], Float32Array.of(1 / 64)));
  graph.addInitializer(Tensor.create('zero', DataType.INT8, [], Int8Array.of(0)));
  for (const weight of weights) graph.addInitializer(Tensor.create(...weight));
  build((op, inputs, output, more = [], attributes = {}) => {
    const [opType, domain] = op.split('::').reverse() as [string, string?];
    const options = { name: output, attributes, ...(domain === undefined ? {} : { domain }) };
    graph.addNode(makeNode(opType, inputs, [output, ...more], options));
  });
  const map: LinearMap = {
    layer: 0,
    role: 'down',
    input: 'x',
    output: 'y',
    inFeatures: IN,
    outFeatures: OUT,
    hasBias: false,
    nodes: graph.nodes,
  };
  return readMatrix(model, map, session);
}

describe('readMatrix', () => {
  it('keeps the last bits of a weight beside a large bias', async () => {
    const { weight, bias } = await read((node) => {
      node('MatMul', ['x', 'w'], 'product');
      node('Add', ['product', 'b'], 'y');
    });
    expect(
      distance(
        weight,
        Float32Array.from(weight, (_, i) => Math.sin(i)),
      ),
    ).toBeLessThan(2e-7);
    expect([...bias!]).toEqual([1, 2, 3, 4, 5, 6]);
  });

  /** Codes of the weight, `w = (codes − 3) / 100`; the input's, in steps of 1/16, reach to ±8. */
  const codes = Uint8Array.from({ length: IN * OUT }, (_, i) => (i * 37) % 256);
  const quantised: Weights = [
    ['codes', DataType.UINT8, [IN, OUT], codes],
    ['w_scale', DataType.FLOAT, [], Float32Array.of(0.01)],
    ['w_zero', DataType.UINT8, [], Uint8Array.of(3)],
    ['x_scale', DataType.FLOAT, [], Float32Array.of(1 / 16)],
    ['x_zero', DataType.UINT8, [], Uint8Array.of(128)],
    ['y_scale', DataType.FLOAT, [], Float32Array.of(2)],
  ];
  const W = ['codes', 'w_scale', 'w_zero'];

  it.each<[string, (node: AddNode) => void, number]>([
    [
      'weights that are dequantised',
      (node) => {
        node('DequantizeLinear', W, 'w2');
        node('MatMul', ['x', 'w2'], 'y');
      },
      1e-6,
    ],
    [
      'inputs and weights in codes (QDQ)',
      (node) => {
        node('QuantizeLinear', ['x', 'x_scale', 'x_zero'], 'q');
        node('DequantizeLinear', ['q', 'x_scale', 'x_zero'], 'back');
        node('DequantizeLinear', W, 'w2');
        node('MatMul', ['back', 'w2'], 'y');
      },
      1e-6,
    ],
    [
      'sums of products of codes (MatMulInteger), and a bias',
      (node) => {
        node('DynamicQuantizeLinear', ['x'], 'q', ['q_scale', 'q_zero']);
        node('MatMulInteger', ['q', 'codes', 'q_zero', 'w_zero'], 'sums');
        node('Cast', ['sums'], 'float', [], { to: { int: DataType.FLOAT } });
        node('Mul', ['w_scale', 'q_scale'], 'scale');
        node('Mul', ['scale', 'float'], 'product');
        node('Add', ['b', 'product'], 'y');
      },
      1e-5,
    ],
    [
      'com.microsoft::MatMulIntegerToFloat',
      (node) => {
        node('DynamicQuantizeLinear', ['x'], 'q', ['q_scale', 'q_zero']);
        const inputs = ['q', 'codes', 'q_scale', 'w_scale', 'q_zero', 'w_zero', 'b'];
        node('com.microsoft::MatMulIntegerToFloat', inputs, 'y');
      },
      1e-5,
    ],
    [
      'com.microsoft::DynamicQuantizeMatMul',
      (node) => node('com.microsoft::DynamicQuantizeMatMul', ['x', ...W, 'b'], 'y'),
      1e-5,
    ],
    [
      'com.microsoft::FusedMatMul, which transposes',
      (node) => {
        node('DequantizeLinear', W, 'w2');
        node('Transpose', ['w2'], 'w3');
        node('com.microsoft::FusedMatMul', ['x', 'w3'], 'y', [], { transB: { int: 1 } });
      },
      1e-6,
    ],
  ])('reads %s', async (_, build, limit) => {
    const { weight } = await read(build, quantised);
    const expected = Float32Array.from(codes, (code) => (code - 3) / 100);
    expect(distance(weight, expected)).toBeLessThanOrEqual(limit);
  });

  it('does not take coarse codes of results for a matrix', async () => {
    const coarse = read((node) => {
      node('QuantizeLinear', ['x', 'x_scale', 'x_zero'], 'q');
      const product = ['q', 'x_scale', 'x_zero', ...W, 'y_scale', 'x_zero'];
      node('QLinearMatMul', product, 'q2');
      node('DequantizeLinear', ['q2', 'y_scale', 'x_zero'], 'y');
    }, quantised);
    await expect(coarse).rejects.toMatchObject({ code: 'MAP_NOT_AFFINE' });
  });

  it('refuses what is not affine by its operators', async () => {
    const gelu = read((node) => {
      node('MatMul', ['x', 'w'], 'product');
      node('Gelu', ['product'], 'y');
    });
    await expect(gelu).rejects.toMatchObject({ code: 'MAP_NOT_AFFINE', found: 'Gelu "y"' });
  });

  it('refuses what is not affine by its numbers: codes that end at 2', async () => {
    const clipped = read((node) => {
      node('QuantizeLinear', ['x', 'step', 'zero'], 'codes');
      node('DequantizeLinear', ['codes', 'step', 'zero'], 'back');
      node('MatMul', ['back', 'w'], 'y');
    });
    await expect(clipped).rejects.toMatchObject({
      code: 'MAP_NOT_AFFINE',
      found: 'other values than those of its matrix',
    });
  });

  it('refuses a map that is not there', async () => {
    await expect(read((node) => node('MatMul', ['x', 'w'], 'z'))).rejects.toMatchObject({
      code: 'MAP_NOT_FOUND',
    });
  });
});

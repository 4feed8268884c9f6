import { halfTable, toHalf } from '../../gguf/half.js';
import {
  ComputedData,
  DataType,
  dataTypeName,
  describeNode,
  makeNode,
  type Node,
  Tensor,
} from '../../onnx/index.js';
import { dequantiseBlocks, type QuantisedBlocks, quantiseBlocks } from '../../quantise/index.js';
import { GraphEdit } from '../graph-edit.js';
import { needContribOperators } from './contrib.js';
import { type FloatWeight, floatWeight } from './products.js';
import { type FuseContext, type FusePassReport, Tally } from './types.js';

const DEFAULT_BLOCK = 32;
/**
 * `accuracy_level` of the products: inputs are rounded to 8 bits, too, as the builder asks for. With 8-bit blocks ONNX
 * Runtime 1.30 has no other fast kernel on CPUs.
 */
const ACCURACY_LEVEL = 4;

/**
 * `MatMul` with a weight in floating point → `MatMulNBits` with the weight in blocks.
 *
 * @param as `values` keeps `MatMul` and gives it the numbers that the blocks stand for: what the quantised graph is
 *   checked against
 */
export async function quantiseProducts(
  { model, names, options }: FuseContext,
  as: 'blocks' | 'values',
): Promise<FusePassReport> {
  const tally = new Tally('quantise');
  const { graph } = model;
  const edit = new GraphEdit(graph);
  const producers = graph.producers();
  const blockSize = options.blockSize ?? DEFAULT_BLOCK;
  const bits = options.bits ?? 4;
  for (const node of graph.nodes) {
    const weight = floatWeight(graph, producers, node);
    if (weight === undefined) continue;
    const { inFeatures, outFeatures, tensor } = weight;
    const { dataType } = tensor;
    if (dataType !== DataType.FLOAT && dataType !== DataType.FLOAT16) {
      tally.refused(describeNode(node), 'a weight in float32 or float16', dataTypeName(dataType));
      continue;
    }
    if (inFeatures % blockSize !== 0) {
      tally.refused(describeNode(node), `a multiple of ${blockSize} inputs`, `${inFeatures}`);
      continue;
    }
    const blocks = new LazyBlocks(weight, bits, blockSize);
    const label = `${tensor.name}.${bits}bit`;
    tally.applied();
    if (as === 'values') {
      const data = new ComputedData(
        inFeatures * outFeatures * (dataType === DataType.FLOAT16 ? 2 : 4),
        async () => bytesOf(dequantiseBlocks(await blocks.take('codes')), dataType),
      );
      const value = graph.addInitializer(
        Tensor.create(names.fresh(label), dataType, [inFeatures, outFeatures], data),
      );
      edit.replace(node, [
        makeNode('MatMul', [node.input[0] as string, value], node.output, { name: node.name }),
      ]);
      continue;
    }
    const perColumn = inFeatures / blockSize;
    const blob = (blockSize * bits) / 8;
    const codes = new ComputedData(
      outFeatures * perColumn * blob,
      async () => (await blocks.take('codes')).codes,
    );
    const scales = new ComputedData(
      outFeatures * perColumn * (dataType === DataType.FLOAT16 ? 2 : 4),
      async () => bytesOf((await blocks.take('scales')).scales, dataType),
    );
    const inputs = [
      node.input[0] as string,
      graph.addInitializer(
        Tensor.create(names.fresh(`${label}.codes`), DataType.UINT8, [outFeatures, perColumn, blob], codes),
      ),
      graph.addInitializer(
        Tensor.create(names.fresh(`${label}.scales`), dataType, [outFeatures, perColumn], scales),
      ),
    ];
    edit.replace(node, [product(node, inputs, { inFeatures, outFeatures, bits, blockSize })]);
  }
  edit.apply();
  if (as === 'blocks' && tally.report().applied > 0) needContribOperators(model);
  return tally.report();
}

function product(
  node: Node,
  inputs: readonly string[],
  {
    inFeatures,
    outFeatures,
    bits,
    blockSize,
  }: { inFeatures: number; outFeatures: number; bits: number; blockSize: number },
): Node {
  return makeNode('MatMulNBits', inputs, node.output, {
    name: node.name,
    domain: 'com.microsoft',
    attributes: {
      K: { int: inFeatures },
      N: { int: outFeatures },
      bits: { int: bits },
      block_size: { int: blockSize },
      accuracy_level: { int: ACCURACY_LEVEL },
    },
  });
}

/** Codes and scales of one matrix, made when one of them is asked for and kept until the other has been, too. */
class LazyBlocks {
  #made: Promise<QuantisedBlocks> | undefined;
  #taken: 'codes' | 'scales' | undefined;

  constructor(
    readonly weight: FloatWeight,
    readonly bits: 4 | 8,
    readonly blockSize: number,
  ) {}

  take(part: 'codes' | 'scales'): Promise<QuantisedBlocks> {
    const made = this.#made ?? this.#make();
    const both = this.#taken !== undefined && this.#taken !== part;
    this.#made = both ? undefined : made;
    this.#taken = both ? undefined : part;
    return made;
  }

  async #make(): Promise<QuantisedBlocks> {
    const { inFeatures, outFeatures, tensor } = this.weight;
    const half = tensor.dataType === DataType.FLOAT16;
    return quantiseBlocks(await valuesOf(this.weight), {
      inFeatures,
      outFeatures,
      bits: this.bits,
      blockSize: this.blockSize,
      scaleType: half ? 'float16' : 'float32',
    });
  }
}

/** Row-major `[inFeatures, outFeatures]`. */
async function valuesOf({ tensor, transposed, inFeatures, outFeatures }: FloatWeight): Promise<Float32Array> {
  const { buffer } = Uint8Array.from(await tensor.bytes());
  const stored =
    tensor.dataType === DataType.FLOAT16 ? fromHalf(new Uint16Array(buffer)) : new Float32Array(buffer);
  if (!transposed) return stored;
  const out = new Float32Array(stored.length);
  for (let column = 0; column < outFeatures; column++) {
    for (let row = 0; row < inFeatures; row++) {
      out[row * outFeatures + column] = stored[column * inFeatures + row] as number;
    }
  }
  return out;
}

function fromHalf(bits: Uint16Array): Float32Array {
  const table = halfTable();
  return Float32Array.from(bits, (half) => table[half] as number);
}

function bytesOf(values: Float32Array, dataType: number): Uint8Array {
  const data = dataType === DataType.FLOAT16 ? toHalf(values) : values;
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}

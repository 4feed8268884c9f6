import { toHalf } from '../gguf/half.js';
import { DataType, type Model, makeNode, type Node, Tensor } from '../onnx/index.js';
import { needContribOperators } from '../rewrite/fuse/contrib.js';
import type { Names } from '../rewrite/names.js';
import type { QuantisedBlocks } from './blocks.js';
import type { LookupSite, ProductSite } from './sites.js';

/** The names of a matrix's parts in a graph. */
export interface StoredBlocks {
  readonly codes: string;
  readonly scales: string;
  readonly zeroPoints: string | undefined;
}

/** Adds the parts of a matrix to a graph, as `MatMulNBits` reads them. */
export function addBlocks(model: Model, names: Names, label: string, blocks: QuantisedBlocks): StoredBlocks {
  const { inFeatures, outFeatures, blockSize, bits, codes, scales, zeroPoints, scaleType } = blocks;
  const perColumn = inFeatures / blockSize;
  const add = (part: string, type: number, dims: readonly number[], data: ArrayBufferView) =>
    model.graph.addInitializer(Tensor.create(names.fresh(`${label}.${part}`), type, dims, data));
  const half = scaleType === 'float16';
  return {
    codes: add('weight_codes', DataType.UINT8, [outFeatures, perColumn, (blockSize * bits) / 8], codes),
    scales: add(
      'weight_scales',
      half ? DataType.FLOAT16 : DataType.FLOAT,
      [outFeatures, perColumn],
      half ? toHalf(scales) : scales,
    ),
    zeroPoints: zeroPoints && addZeroPoints(add, blocks, zeroPoints),
  };
}

/** Zero points of 4 bits lie two in a byte, those of each column beginning a byte of their own. */
function addZeroPoints(
  add: (part: string, type: number, dims: readonly number[], data: ArrayBufferView) => string,
  { inFeatures, outFeatures, blockSize, bits }: QuantisedBlocks,
  zeroPoints: Uint8Array,
): string {
  const perColumn = inFeatures / blockSize;
  if (bits === 8) return add('weight_zero_points', DataType.UINT8, [outFeatures, perColumn], zeroPoints);
  const bytes = Math.ceil(perColumn / 2);
  const packed = new Uint8Array(outFeatures * bytes);
  for (let column = 0; column < outFeatures; column++) {
    for (let block = 0; block < perColumn; block++) {
      packed[column * bytes + (block >> 1)]! |= zeroPoints[column * perColumn + block]! << (4 * (block & 1));
    }
  }
  return add('weight_zero_points', DataType.UINT8, [outFeatures, bytes], packed);
}

/** The nodes that compute a product with a matrix in blocks in the place of one in floating point. */
export function blockProduct(
  model: Model,
  names: Names,
  site: Pick<ProductSite, 'node' | 'input' | 'bias'>,
  blocks: Pick<QuantisedBlocks, 'inFeatures' | 'outFeatures' | 'bits' | 'blockSize'>,
  stored: StoredBlocks,
  accuracyLevel: number,
): Node[] {
  needContribOperators(model);
  const { node, input, bias } = site;
  const output = bias === undefined ? node.output : [names.fresh(`${node.output[0]}/product`)];
  const { codes, scales, zeroPoints } = stored;
  const inputs = [input, codes, scales, ...(zeroPoints === undefined ? [] : [zeroPoints])];
  const product = makeNode('MatMulNBits', inputs, output, {
    name: node.name,
    domain: 'com.microsoft',
    attributes: {
      K: { int: blocks.inFeatures },
      N: { int: blocks.outFeatures },
      bits: { int: blocks.bits },
      block_size: { int: blocks.blockSize },
      accuracy_level: { int: accuracyLevel },
    },
  });
  if (bias === undefined) return [product];
  const sum = makeNode('Add', [output[0]!, bias], node.output, { name: names.fresh(`${node.name}/Add`) });
  return [product, sum];
}

/** The nodes that look up rows of a table in blocks: the codes' blocks folded together, since they stand in rows there. */
export function blockLookup(
  model: Model,
  names: Names,
  { node, rows, width }: Pick<LookupSite, 'node' | 'rows' | 'width'>,
  blocks: Pick<QuantisedBlocks, 'bits' | 'blockSize'>,
  stored: StoredBlocks,
): Node[] {
  needContribOperators(model);
  const shape = model.graph.addInitializer(
    Tensor.create(
      names.fresh(`${stored.codes}.rows`),
      DataType.INT64,
      [2],
      BigInt64Array.of(BigInt(rows), BigInt((width * blocks.bits) / 8)),
    ),
  );
  const folded = names.fresh(`${stored.codes}.folded`);
  const name = names.fresh(`${node.name}/Reshape`);
  const { scales, zeroPoints } = stored;
  const inputs = [folded, node.input[1]!, scales, ...(zeroPoints === undefined ? [] : [zeroPoints])];
  return [
    makeNode('Reshape', [stored.codes, shape], [folded], { name }),
    makeNode('GatherBlockQuantized', inputs, node.output, {
      name: node.name,
      domain: 'com.microsoft',
      attributes: {
        bits: { int: blocks.bits },
        block_size: { int: blocks.blockSize },
        gather_axis: { int: 0 },
        quantize_axis: { int: 1 },
      },
    }),
  ];
}

import {
  appendBlockSums,
  encodeOffsets,
  type OffsetLayout,
  offsetLayout,
  type ProductBlocks,
  zeroPointBytes,
} from '../block-offsets/index.js';
import { DataType, type TensorData } from '../onnx/index.js';
import { type BlockFormat, blockFormat, type CodedBlocks, isBlockType, readBlocks } from './blocks.js';
import { encodedRows, PieceData, rowMajorData } from './float-data.js';
import type { GraphBuilder } from './graph-builder.js';
import { emitBias, emitFloatLinear, type LinearEmitter, weightName } from './linear.js';
import type { Storage } from './llama-graph.js';
import { floatStorage } from './storage-float.js';
import type { QuantType } from './types.js';
import type { LinearLayer, MatrixRows } from './weights.js';

/**
 * Weights that stay in blocks: `MatMulNBits` for products, `GatherBlockQuantized` for the embedding table.
 *
 * Codes of 4 bits stay 4 bits; wider ones take 8. Formats without a minimum are centred on the operator's default zero
 * point. One with a minimum is blocks with an offset each, `minimum + scale · centre`: most of it is an integer zero
 * point, the rest multiplies the sum of the block's inputs, which the product reads as further inputs.
 */
export const blockStorage: Storage = {
  floatType: 'float32',
  packs: (layer) => new Set(layer.parts.map((part) => signature(part.type))).size === 1,
  linear: (builder, name, input, layer, output) => {
    const format = commonFormat(layer);
    if (format === undefined) return emitFloatLinear(builder, name, input, layer, output);
    return emitBlockLinear(format)(builder, name, input, layer, output);
  },
  embedding: (b, name, ids, table) => {
    const { type, inputs, outputs } = table;
    const format = isBlockType(type) ? blockFormat(type) : undefined;
    if (format === undefined && type !== 'F16') return floatStorage('float32').embedding(b, name, ids, table);
    if (format === undefined || format.hasMinimum) {
      // No operator looks up blocks with a minimum; half precision is far finer than the blocks are.
      const half = b.weight(
        'model.embed_tokens.weight',
        DataType.FLOAT16,
        [outputs, inputs],
        rowMajorData(table, 'float16'),
      );
      const row = b.node(`${name}/Gather`, 'Gather', [half, ids]);
      return b.node(`${name}/Cast`, 'Cast', [row], { to: { int: DataType.FLOAT } });
    }
    const { codes, scales } = addBlocks(b, 'model.embed_tokens', asLayer(table), format);
    const bits = storedBits(format);
    // The product with the same table wants the blocks apart, the lookup wants rows.
    const shape = b.int64([outputs, (inputs * bits) / 8]);
    const rows = b.node(`${name}/Reshape`, 'Reshape', [codes, shape]);
    return b.node(`${name}/Gather`, 'com.microsoft::GatherBlockQuantized', [rows, ids, scales], {
      bits: { int: bits },
      block_size: { int: format.blockSize },
      gather_axis: { int: 0 },
      quantize_axis: { int: 1 },
    });
  },
  tiedOutput: (b, name, input, table) => {
    const { type } = table;
    if (!isBlockType(type)) {
      return type === 'F16'
        ? emitFloatLinear(b, name, input, asLayer(table))
        : floatStorage('float32').tiedOutput(b, name, input, table);
    }
    const format = blockFormat(type);
    if (format.hasMinimum) return emitBlockLinear(format)(b, name, input, asLayer(table));
    const weights = { codes: 'model.embed_tokens.weight_codes', scales: 'model.embed_tokens.weight_scales' };
    return emitProduct(b, name, input, asLayer(table), format, weights);
  },
};

/** Bits of the stored codes: `MatMulNBits` has fast kernels for 4 and 8. */
export function storedBits({ bits }: BlockFormat): 4 | 8 {
  return bits === 4 ? 4 : 8;
}

/**
 * `accuracy_level` of the products: 1 computes with float32 inputs, 4 rounds the inputs to 8 bits by blocks as well, as
 * llama.cpp does. Measured with SmolLM2 on two AVX-512 cores: for 4 bits, level 4 decodes 1.26 times as fast, and
 * perplexity grows by 0.1 % (prose) to 0.4 % (documentation); for 8 bits, level 1 has no kernel of its own and is 40
 * times slower.
 */
const ACCURACY_LEVEL = 4;

function asLayer(table: MatrixRows): LinearLayer {
  return { parts: [table], inputs: table.inputs, outputs: table.outputs };
}

/** Types whose rows can stand in one matrix. */
function signature(type: QuantType): string {
  if (!isBlockType(type)) return 'float';
  const format = blockFormat(type);
  return `${storedBits(format)}/${format.blockSize}/${format.hasMinimum}`;
}

function commonFormat(layer: LinearLayer): BlockFormat | undefined {
  const { type } = layer.parts[0]!;
  return isBlockType(type) ? blockFormat(type) : undefined;
}

const emitBlockLinear =
  (format: BlockFormat): LinearEmitter =>
  (b, name, input, layer, output) => {
    const last = layer.biases === undefined ? output : undefined;
    if (format.hasMinimum) {
      return emitBias(b, name, emitOffsetProduct(b, name, input, layer, format, last), layer, output);
    }
    const weights = addBlocks(b, `${weightName(name)}.MatMul`, layer, format);
    return emitBias(b, name, emitProduct(b, name, input, layer, format, weights, last), layer, output);
  };

interface BlockWeights {
  readonly codes: string;
  readonly scales: string;
  /** Where they are not the operator's own. */
  readonly zeroPoints?: string;
}

function addBlocks(b: GraphBuilder, name: string, layer: LinearLayer, format: BlockFormat): BlockWeights {
  const { inputs, outputs } = layer;
  const bits = storedBits(format);
  const blocks = inputs / format.blockSize;
  const blob = (format.blockSize * bits) / 8;
  return {
    codes: b.weight(
      `${name}.weight_codes`,
      DataType.UINT8,
      [outputs, blocks, blob],
      perBlock(layer, outputs * blocks * blob, storedCodes),
    ),
    scales: b.weight(
      `${name}.weight_scales`,
      DataType.FLOAT,
      [outputs, blocks],
      perBlock(layer, outputs * blocks * 4, ({ coded }) => bytesOf(coded.scales)),
    ),
  };
}

function emitProduct(
  b: GraphBuilder,
  name: string,
  input: string,
  layer: LinearLayer,
  format: BlockFormat,
  { codes, scales, zeroPoints }: BlockWeights,
  output?: string,
  features = layer.inputs,
): string {
  const bits = storedBits(format);
  return b.node(
    `${name}/MatMul`,
    'com.microsoft::MatMulNBits',
    [input, codes, scales, ...(zeroPoints === undefined ? [] : [zeroPoints])],
    {
      K: { int: features },
      N: { int: layer.outputs },
      bits: { int: bits },
      block_size: { int: format.blockSize },
      accuracy_level: { int: ACCURACY_LEVEL },
    },
    output,
  );
}

/** The product of blocks with minima, read with the sums of the input's blocks. */
function emitOffsetProduct(
  b: GraphBuilder,
  name: string,
  input: string,
  layer: LinearLayer,
  format: BlockFormat,
  output: string | undefined,
): string {
  const { inputs, outputs } = layer;
  const { blockSize } = format;
  const bits = storedBits(format);
  const layout = offsetLayout({ inFeatures: inputs, bits, blockSize });
  const { totalBlocks } = layout;
  const blob = (blockSize * bits) / 8;
  const zeroBytes = zeroPointBytes(layout);
  const laidOut = new LaidOut(layer, layout);
  const weight = `${weightName(name)}.MatMul`;
  const weights = {
    codes: b.weight(
      `${weight}.weight_codes`,
      DataType.UINT8,
      [outputs, totalBlocks, blob],
      new PieceData(outputs * totalBlocks * blob, () => laidOut.codes()),
    ),
    scales: b.weight(
      `${weight}.weight_scales`,
      DataType.FLOAT,
      [outputs, totalBlocks],
      new PieceData(outputs * totalBlocks * 4, () => laidOut.beside('scales')),
    ),
    zeroPoints: b.weight(
      `${weight}.weight_zero_points`,
      DataType.UINT8,
      [outputs, zeroBytes],
      new PieceData(outputs * zeroBytes, () => laidOut.beside('zeroPoints')),
    ),
  };
  const read = withBlockSums(b, input, layout);
  return emitProduct(b, name, read, layer, format, weights, output, layout.features);
}

/** A layer's blocks as their product reads them. */
class LaidOut {
  /** What lies beside the codes that were written last, until it is written as well: it need not be made again. */
  readonly #kept = { scales: undefined, zeroPoints: undefined } as {
    scales: Uint8Array[] | undefined;
    zeroPoints: Uint8Array[] | undefined;
  };

  constructor(
    readonly layer: LinearLayer,
    readonly layout: OffsetLayout,
  ) {}

  async *codes(): AsyncGenerator<Uint8Array> {
    const [scales, zeroPoints]: [Uint8Array[], Uint8Array[]] = [[], []];
    for await (const product of this.#pieces()) {
      scales.push(bytesOf(product.scales));
      zeroPoints.push(product.zeroPoints);
      yield product.codes;
    }
    Object.assign(this.#kept, { scales, zeroPoints });
  }

  async *beside(which: 'scales' | 'zeroPoints'): AsyncGenerator<Uint8Array> {
    const kept = this.#kept[which];
    this.#kept[which] = undefined;
    if (kept !== undefined) {
      yield* kept;
      return;
    }
    for await (const product of this.#pieces()) {
      yield which === 'scales' ? bytesOf(product.scales) : product.zeroPoints;
    }
  }

  async *#pieces(): AsyncGenerator<ProductBlocks> {
    for await (const rows of codedRows(this.layer)) {
      const { scales, minima } = rows.coded;
      const centre = middle(rows.format.bits);
      const offsets = minima!.map((minimum, block) => minimum + scales[block]! * centre);
      yield encodeOffsets({ codes: storedCodes(rows), scales, offsets }, rows.count, this.layout);
    }
  }
}

/** The input with the sums of its blocks, made once for all products that read it so. */
function withBlockSums(b: GraphBuilder, input: string, layout: OffsetLayout): string {
  const at = `${input.replace(/\/output_(\d+)$/, (_, place) => (place === '0' ? '' : `.${place}`))}/BlockSums.${layout.blockSize}.${layout.digits}`;
  const known = `${at}/Concat/output_0`;
  if (b.graph.nodes.some((node) => node.output.includes(known))) return known;
  return appendBlockSums(
    {
      node: (opType, inputs, attributes) => b.node(`${at}/${opType}`, opType, inputs, attributes),
      integers: (values) => b.int64(values),
    },
    input,
    layout,
  );
}

/** Data made from the coded rows of all parts, one after the other. */
function perBlock(
  layer: LinearLayer,
  byteLength: number,
  convert: (rows: CodedRows) => Uint8Array,
): TensorData {
  return new PieceData(byteLength, async function* () {
    for await (const rows of codedRows(layer)) yield convert(rows);
  });
}

interface CodedRows {
  readonly coded: CodedBlocks;
  readonly format: BlockFormat;
  /** Rows. */
  readonly count: number;
}

async function* codedRows(layer: LinearLayer): AsyncGenerator<CodedRows> {
  const rowsAtOnce = Math.max(1, Math.floor((16 * 1024 * 1024) / layer.inputs));
  for (const part of layer.parts) {
    const { type } = part;
    if (!isBlockType(type)) throw new TypeError(`${type} has no blocks`);
    for await (const { count, bytes } of encodedRows(part, rowsAtOnce)) {
      yield { coded: readBlocks(type, bytes), format: blockFormat(type), count };
    }
  }
}

/** The middle of a range of codes; the operators take it for 0 where no zero points are given. */
const middle = (bits: number): number => 1 << (bits - 1);

/** Codes as `MatMulNBits` reads them: one a byte, or two neighbours a byte, the even one low. */
function storedCodes({ coded: { codes }, format }: CodedRows): Uint8Array {
  if (storedBits(format) === 8) {
    const shift = middle(8) - middle(format.bits);
    return shift === 0 ? codes : codes.map((code) => code + shift);
  }
  const out = new Uint8Array(codes.length / 2);
  for (let i = 0; i < out.length; i++) out[i] = codes[2 * i]! | (codes[2 * i + 1]! << 4);
  return out;
}

function bytesOf(values: Float32Array): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}

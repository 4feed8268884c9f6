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
 * Codes of 4 bits stay 4 bits; wider ones take 8. Both are centred on the operator's default zero point, so no
 * format needs zero points of its own. What a format with a minimum has beyond that,
 * `(minimum + scale · centre)` for a whole block, is carried exactly: it multiplies the *sum* of the block's
 * inputs, and so is a small product `[inputs / 32] × [inputs / 32, outputs]` beside the large one.
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
    const { codes, scales } = addBlocks(b, `${weightName(name)}.MatMul`, layer, format);
    const last = format.hasMinimum ? undefined : layer.biases === undefined ? output : undefined;
    let result = emitProduct(b, name, input, layer, format, { codes, scales }, last);
    if (format.hasMinimum) {
      const rest = emitRemainder(b, name, input, layer, format);
      result = b.node(
        `${name}/Remainder/Add`,
        'Add',
        [result, rest],
        {},
        layer.biases === undefined ? output : undefined,
      );
    }
    return emitBias(b, name, result, layer, output);
  };

interface BlockWeights {
  readonly codes: string;
  readonly scales: string;
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
  { codes, scales }: BlockWeights,
  output?: string,
): string {
  const bits = storedBits(format);
  return b.node(
    `${name}/MatMul`,
    'com.microsoft::MatMulNBits',
    [input, codes, scales],
    {
      K: { int: layer.inputs },
      N: { int: layer.outputs },
      bits: { int: bits },
      block_size: { int: format.blockSize },
      accuracy_level: { int: ACCURACY_LEVEL },
    },
    output,
  );
}

/** The product of the blocks' input sums with what the codes leave of each block. */
function emitRemainder(
  b: GraphBuilder,
  name: string,
  input: string,
  layer: LinearLayer,
  format: BlockFormat,
): string {
  const { inputs, outputs } = layer;
  const blocks = inputs / format.blockSize;
  const sums = blockSums(b, input, blocks, format.blockSize);
  const rest = b.weight(
    `${weightName(name)}.MatMul.weight_remainder`,
    DataType.FLOAT,
    [blocks, outputs],
    remainderData(layer, blocks),
  );
  return b.node(`${name}/Remainder/MatMul`, 'MatMul', [sums, rest]);
}

/** `[batch, seq, inputs]` → `[batch, seq, blocks]`, made once for all products with the same input. */
function blockSums(b: GraphBuilder, input: string, blocks: number, blockSize: number): string {
  const at = `${input.replace(/\/output_\d+$/, '')}/BlockSums`;
  const sums = `${at}/ReduceSum/output_0`;
  if (b.graph.nodes.some((node) => node.output.includes(sums))) return sums;
  const split = b.node(`${at}/Reshape`, 'Reshape', [input, b.int64([0, 0, blocks, blockSize])]);
  return b.node(`${at}/ReduceSum`, 'ReduceSum', [split, b.int64([-1])], { keepdims: { int: 0 } }, sums);
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
  /** The first row's place among the outputs. */
  readonly first: number;
  readonly count: number;
}

async function* codedRows(layer: LinearLayer): AsyncGenerator<CodedRows> {
  let before = 0;
  const rowsAtOnce = Math.max(1, Math.floor((16 * 1024 * 1024) / layer.inputs));
  for (const part of layer.parts) {
    const { type } = part;
    if (!isBlockType(type)) throw new TypeError(`${type} has no blocks`);
    for await (const { first, count, bytes } of encodedRows(part, rowsAtOnce)) {
      yield { coded: readBlocks(type, bytes), format: blockFormat(type), first: before + first, count };
    }
    before += part.outputs;
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

/** `minimum + scale · middle` of every block, `[blocks, outputs]`. */
function remainderData(layer: LinearLayer, blocks: number): TensorData {
  const { outputs } = layer;
  return new PieceData(blocks * outputs * 4, async function* () {
    const out = new Float32Array(blocks * outputs);
    for await (const { coded, format, first, count } of codedRows(layer)) {
      const { scales, minima } = coded;
      for (let row = 0; row < count; row++) {
        for (let block = 0; block < blocks; block++) {
          const at = row * blocks + block;
          out[block * outputs + first + row] = minima![at]! + scales[at]! * middle(format.bits);
        }
      }
    }
    yield bytesOf(out);
  });
}

function bytesOf(values: Float32Array): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}

import { create } from '@bufbuild/protobuf';
import { UsageError } from '@cqil/core';
import { appendBlockSums, type OffsetLayout, offsetLayout } from '../../block-offsets/index.js';
import { toHalf } from '../../gguf/half.js';
import type { AffinePart } from '../../linear/affine.js';
import { OperatorSetIdProtoSchema } from '../../onnx/gen/onnx_pb.js';
import {
  ComputedData,
  DataType,
  dataTypeName,
  intAttribute,
  type Model,
  makeNode,
  type Node,
  type NodeOptions,
  rawByteLength,
  Tensor,
} from '../../onnx/index.js';
import type { Names } from '../names.js';
import type { ConstantReader } from './constant-reader.js';
import { type BlockFormat, type StoredBlocks, WideBlocks } from './wide-blocks.js';
import type { WideMatrix, WidePiece } from './wide-matrix.js';

/**
 * How the matrices of wide layers are stored:
 * - `float`: in the type of what they multiply
 * - `int4-blocks`, `int8-blocks`: in blocks along the inputs that share a scale, for ONNX Runtime's `MatMulNBits`
 * - `auto`: as the members' are: floating point, or quantised once more, behind the folding, in blocks of the same size
 *   and bits. 8-bit weights of other kinds become 8-bit blocks.
 */
export type WideStorage = 'auto' | 'float' | 'int4-blocks' | 'int8-blocks';

export interface BlockStorage extends BlockFormat {
  readonly bits: 4 | 8;
  readonly accuracyLevel: number | undefined;
}

const BLOCK_SIZE = 32;
/** With 8-bit blocks ONNX Runtime has fast kernels on CPUs for inputs rounded to 8 bits alone. */
const ACCURACY_OF_8_BITS = 4;

/** @returns the blocks that a matrix is to be stored in; `undefined` for floating point */
export function blockStorage(
  parts: readonly AffinePart[],
  inFeatures: number,
  storage: WideStorage,
  stored: readonly (BlockFormat | undefined)[],
): BlockStorage | undefined {
  const [part] = parts as [AffinePart];
  const nodes = parts.flatMap((each) => each.nodes.filter(({ opType }) => opType === 'MatMulNBits'));
  const own = nodes.map((node) => ({
    bits: intAttribute(node, 'bits') ?? 4,
    blockSize: intAttribute(node, 'block_size') ?? BLOCK_SIZE,
  }));
  const quantised = parts.every((each) => each.quantised);
  if (storage === 'float' || (storage === 'auto' && !quantised)) return undefined;
  const bits =
    storage === 'auto'
      ? own.length > 0 && own.every((each) => each.bits <= 4)
        ? 4
        : 8
      : storage === 'int4-blocks'
        ? 4
        : 8;
  const blockSize = own[0]?.blockSize ?? BLOCK_SIZE;
  const possible =
    inFeatures % blockSize === 0 && [DataType.FLOAT, DataType.FLOAT16].includes(part.inputType as 1);
  if (!possible) {
    if (storage === 'auto') return undefined;
    throw new UsageError('WIDE_STORAGE', 'A matrix of a wide layer cannot be stored in blocks.', {
      expected: `a multiple of ${blockSize} inputs, of float32 or float16`,
      found: `${inFeatures} of ${dataTypeName(part.inputType)}`,
      hint: 'Use the storage "auto" or "float".',
    });
  }
  // That of a 4-bit source would have no fast kernel for 8 bits.
  const was8 = own.some((each) => each.bits === 8);
  const accuracyLevel = bits === 8 && !was8 ? ACCURACY_OF_8_BITS : part.accuracyLevel;
  // Only what all members have can be gone on with; 8 bits need no offsets.
  const [kind = 'symmetric'] = bits === 4 ? stored.map((each) => each?.kind) : [];
  const common = stored.every((each) => each?.kind === kind) ? kind : 'symmetric';
  return { bits, blockSize, kind: common, accuracyLevel };
}

/** Nodes of one wide layer, in the order in which they were made, with the weights that they read. */
export class Emitter {
  readonly nodes: Node[] = [];
  readonly #sums = new Map<string, string>();

  constructor(
    readonly model: Model,
    readonly names: Names,
    readonly prefix: string,
  ) {}

  /** A node with one output, or with as many as are named. */
  node(
    name: string,
    opType: string,
    inputs: readonly string[],
    options: Omit<NodeOptions, 'name'> & { outputs?: readonly string[] } = {},
  ): string {
    const { outputs, ...rest } = options;
    const nodeName = this.names.fresh(`${this.prefix}/${name}/${opType}`);
    const made = outputs ?? [this.names.fresh(`${nodeName}_output_0`)];
    this.nodes.push(makeNode(opType, inputs, made, { name: nodeName, ...rest }));
    return made[0] as string;
  }

  weight(
    name: string,
    dataType: number,
    dims: readonly number[],
    data: ArrayBufferView | ComputedData,
  ): string {
    const fresh = this.names.fresh(
      `${this.prefix.slice(1).replaceAll('/', '.')}.${name.replaceAll('/', '.')}`,
    );
    return this.model.graph.addInitializer(Tensor.create(fresh, dataType, dims, data));
  }

  /** A name for a value that a node is going to give. */
  fresh(name: string): string {
    return this.names.fresh(`${this.prefix}/${name}`);
  }

  floats(name: string, dataType: number, dims: readonly number[], values: Float64Array): string {
    return this.weight(name, dataType, dims, encodeFloats(values, dataType));
  }

  integers(name: string, values: readonly number[]): string {
    return this.weight(name, DataType.INT64, [values.length], BigInt64Array.from(values, BigInt));
  }

  /** Cuts a value into parts along one axis. */
  split(
    name: string,
    value: string,
    axis: number,
    sizes: readonly number[],
    outputs: readonly string[],
  ): void {
    const inputs =
      (this.model.opsets.get('') ?? 13) >= 13 ? [value, this.integers(`${name}.sizes`, sizes)] : [value];
    const attributes = { axis: { int: axis }, ...(inputs.length === 1 ? { split: { ints: sizes } } : {}) };
    this.node(name, 'Split', inputs, { outputs, attributes });
  }

  concat(name: string, values: readonly string[], axis: number): string {
    if (values.length === 1) return values[0] as string;
    return this.node(name, 'Concat', values, { attributes: { axis: { int: axis } } });
  }

  /**
   * `input · W + b`, W stored in floating point or in blocks.
   *
   * @param types of what is read and what is to be given
   * @param blocks how it is stored; in floating point when `undefined`
   */
  product(
    name: string,
    input: string,
    matrix: WideMatrix,
    types: Pick<AffinePart, 'inputType' | 'outputType'>,
    blocks:
      | {
          readonly storage: BlockStorage;
          readonly constants: ConstantReader;
          readonly kept: ReadonlyMap<WidePiece, StoredBlocks>;
        }
      | undefined,
  ): string {
    const { inFeatures, outFeatures, hasBias } = matrix.options;
    const { inputType, outputType } = types;
    let value =
      blocks === undefined
        ? this.node(name, 'MatMul', [
            input,
            this.#computed(`${name}.weight`, inputType, [inFeatures, outFeatures], async () =>
              encodeFloats((await matrix.read()).weight, inputType),
            ),
          ])
        : this.#blockProduct(
            name,
            input,
            new WideBlocks(
              matrix,
              blocks.storage,
              inputType === DataType.FLOAT16 ? 'float16' : 'float32',
              blocks.constants,
              blocks.kept,
            ),
            inputType,
            blocks.storage,
          );
    if (hasBias) {
      const bias = this.#computed(`${name}.bias`, inputType, [outFeatures], async () =>
        encodeFloats((await matrix.read()).bias as Float32Array, inputType),
      );
      value = this.node(name, 'Add', [value, bias]);
    }
    return inputType === outputType
      ? value
      : this.node(name, 'Cast', [value], { attributes: { to: { int: outputType } } });
  }

  #blockProduct(
    name: string,
    input: string,
    wide: WideBlocks,
    inputType: number,
    storage: BlockStorage,
  ): string {
    const { inFeatures, outFeatures } = wide.matrix.options;
    const { bits, blockSize, kind, accuracyLevel } = storage;
    const layout = kind === 'offsets' ? offsetLayout({ inFeatures, bits, blockSize }) : undefined;
    const features = layout?.features ?? inFeatures;
    const blocks = features / blockSize;
    const codes = this.#computed(
      `${name}.codes`,
      DataType.UINT8,
      [outFeatures, blocks, (blockSize * bits) / 8],
      async () => (await wide.read(false)).codes,
    );
    // In the order in which they are written, so that nothing is made twice.
    const scales = this.#computed(`${name}.scales`, inputType, [outFeatures, blocks], async () =>
      encodeFloats((await wide.read(kind === 'symmetric')).scales, inputType),
    );
    const inputs = [layout === undefined ? input : this.#withBlockSums(input, layout), codes, scales];
    if (kind !== 'symmetric') {
      const dims = [outFeatures, Math.ceil((blocks * bits) / 8)];
      inputs.push(
        this.#computed(
          `${name}.zero_points`,
          DataType.UINT8,
          dims,
          async () => (await wide.read(true)).zeroPoints,
        ),
      );
    }
    needContribOperators(this.model);
    return this.node(name, 'MatMulNBits', inputs, {
      domain: 'com.microsoft',
      attributes: {
        K: { int: features },
        N: { int: outFeatures },
        bits: { int: bits },
        block_size: { int: blockSize },
        ...(accuracyLevel === undefined ? {} : { accuracy_level: { int: accuracyLevel } }),
      },
    });
  }

  /** A value `[batch, sequence, features]` with the sums of its blocks; made once for all products that read it so. */
  #withBlockSums(input: string, layout: OffsetLayout): string {
    const key = `${layout.blockSize} ${layout.digits} ${input}`;
    const known = this.#sums.get(key);
    if (known !== undefined) return known;
    const name = `block_sums.${this.#sums.size}`;
    let constants = 0;
    const made = appendBlockSums(
      {
        node: (opType, inputs, attributes = {}) => this.node(name, opType, inputs, { attributes }),
        integers: (values) => this.integers(`${name}.${constants++}`, values),
      },
      input,
      layout,
    );
    this.#sums.set(key, made);
    return made;
  }

  #computed(
    name: string,
    dataType: number,
    dims: readonly number[],
    make: () => Promise<ArrayBufferView>,
  ): string {
    const length = rawByteLength(name, dataType, dims.map(BigInt)) as number;
    const compute = async () => {
      const { buffer, byteOffset, byteLength } = await make();
      return new Uint8Array(buffer, byteOffset, byteLength);
    };
    return this.weight(name, dataType, dims, new ComputedData(length, compute));
  }
}

export function encodeFloats(values: Float32Array | Float64Array, dataType: number): ArrayBufferView {
  switch (dataType) {
    case DataType.FLOAT:
      return values instanceof Float32Array ? values : Float32Array.from(values);
    case DataType.FLOAT16:
      return toHalf(Float32Array.from(values));
    case DataType.DOUBLE:
      return Float64Array.from(values);
    default:
      throw new UsageError('WIDE_STORAGE', 'Matrices of this type cannot be written.', {
        expected: 'float32, float16 or float64',
        found: dataTypeName(dataType),
      });
  }
}

export function needContribOperators(model: Model): void {
  if (model.opsets.has('com.microsoft')) return;
  model.rest.opsetImport.push(create(OperatorSetIdProtoSchema, { domain: 'com.microsoft', version: 1n }));
}

import { create } from '@bufbuild/protobuf';
import { UsageError } from '@cqil/core';
import { toHalf } from '../gguf/half.js';
import { OperatorSetIdProtoSchema } from '../onnx/gen/onnx_pb.js';
import { DataType, dataTypeName, type Model, makeNode, type Node, Tensor } from '../onnx/index.js';
import { cloneNode } from '../onnx/model.js';
import { quantiseBlocks } from '../quantise/index.js';
import { GraphEdit } from '../rewrite/graph-edit.js';
import { Names } from '../rewrite/names.js';
import { dropUnreadWeights, readValues } from '../rewrite/unread-weights.js';
import type { AffinePart } from './affine.js';
import { MapLocator, nameOf } from './locate.js';
import type { LinearMap } from './types.js';

export interface MatrixReplacement {
  readonly map: LinearMap;
  /** Row-major `[inFeatures, outFeatures]`; may be kept by the new model and so is not to be changed afterwards. */
  readonly weight: Float32Array;
  /** `[outFeatures]`; given if and only if the map has a bias. */
  readonly bias?: Float32Array | undefined;
}

/**
 * How a new matrix is stored:
 * - `float`: in the type of the map's input, for `MatMul`
 * - `int8-blocks`: 8 bits in blocks of 32 inputs, for ONNX Runtime's `MatMulNBits`
 * - `auto`: in blocks where the old one was stored in codes and the new one divides into blocks, else in floating point
 */
export type MatrixStorage = 'auto' | 'float' | 'int8-blocks';

export interface ReplaceOptions {
  /** `auto` when absent. */
  readonly storage?: MatrixStorage;
}

/** Inputs that share a scale. */
const BLOCK_SIZE = 32;
/**
 * `accuracy_level` of products with 8-bit blocks: inputs are rounded to 8 bits, too. Without that ONNX Runtime 1.30 has
 * no kernel for them on CPUs: 4.6 ms instead of 0.05 for one row of [1536, 576]. The rounding is 0.4 % of a result.
 */
const ACCURACY_LEVEL = 4;

/**
 * Puts other matrices in the place of maps: one product each, and a sum where the map has a bias. Nodes are named
 * `/cqil/refit/layer.<j>/<role>/…`; the values at both ends keep their names, so the maps hold in the result as well.
 * What computed the old product goes, with the weights that nothing else reads.
 *
 * The model given is not changed, and nothing is written to its metadata.
 *
 * @param model has the maps' values: the one they were found in, or one rewritten from it
 * @throws UsageError `MAP_MATRIX` for a matrix or bias of another size, values that are not finite, a bias that the map
 *   does not have or lacks; `MAP_TWICE`; `MAP_STORAGE` where `int8-blocks` is asked for and impossible. AnatomyError
 *   `MAP_NOT_FOUND`, `MAP_NOT_AFFINE`
 */
export function replaceMatrices(
  model: Model,
  replacements: readonly MatrixReplacement[],
  options: ReplaceOptions = {},
): Model {
  const copy = model.clone();
  const locator = new MapLocator(copy);
  const edit = new GraphEdit(copy.graph);
  const names = new Names(copy);
  const producers = copy.graph.producers();
  const readBefore = readValues(copy);
  const seen = new Set<string>();
  for (const replacement of replacements) {
    const { map } = replacement;
    const part = locator.locate(map);
    checkReplacement(replacement, part);
    if (seen.has(map.output)) {
      throw new UsageError('MAP_TWICE', `${nameOf(map)} was to be replaced twice.`, {
        expected: 'one matrix for each map',
        found: 'two',
      });
    }
    seen.add(map.output);
    const emitter = new Emitter(copy, names, `/cqil/refit/layer.${map.layer}/${map.role}`, part);
    const nodes = emitter.emit(replacement, options.storage ?? 'auto');
    edit.replace(producers.get(map.output) as Node, nodes);
  }
  edit.apply();
  dropUnreadWeights(copy, readBefore);
  return copy;
}

function checkReplacement({ map, weight, bias }: MatrixReplacement, part: AffinePart): void {
  const { inFeatures, outFeatures } = part;
  const wrong = (expected: string, found: string) =>
    new UsageError('MAP_MATRIX', `The new matrix does not fit ${nameOf(map)}.`, { expected, found });
  if (weight.length !== inFeatures * outFeatures) {
    throw wrong(`${inFeatures} × ${outFeatures} values`, `${weight.length} values`);
  }
  if (part.hasBias !== (bias !== undefined)) {
    throw wrong(
      part.hasBias ? 'a bias, as the map has' : 'no bias, as the map has',
      part.hasBias ? 'none' : 'one',
    );
  }
  if (bias !== undefined && bias.length !== outFeatures) {
    throw wrong(`a bias of ${outFeatures} values`, `${bias.length} values`);
  }
  if (!weight.every(Number.isFinite) || bias?.every(Number.isFinite) === false) {
    throw wrong('finite values', 'infinities, or values that are no numbers');
  }
}

class Emitter {
  readonly #nodes: Node[] = [];

  constructor(
    readonly model: Model,
    readonly names: Names,
    readonly prefix: string,
    readonly part: AffinePart,
  ) {}

  emit({ map, weight, bias }: MatrixReplacement, storage: MatrixStorage): Node[] {
    const { part } = this;
    let value = part.input;
    for (const { node, behindProduct } of part.folds) if (!behindProduct) value = this.#repeat(node, value);
    const blocks = useBlocks(map, part, storage);
    value = blocks ? this.#blockProduct(value, weight) : this.#floatProduct(value, weight);
    if (bias !== undefined) value = this.#add(value, bias);
    if (part.inputType !== part.outputType) {
      value = this.#node('Cast', [value], { attributes: { to: { int: part.outputType } } });
    }
    for (const { node, behindProduct } of part.folds) if (behindProduct) value = this.#repeat(node, value);
    const last = this.#nodes.at(-1) as Node;
    last.output = [part.output];
    return this.#nodes;
  }

  #node(
    opType: string,
    inputs: readonly string[],
    options: Omit<Parameters<typeof makeNode>[3], 'name'> = {},
  ): string {
    const name = this.names.fresh(`${this.prefix}/${opType}`);
    const output = this.names.fresh(`${name}_output_0`);
    this.#nodes.push(makeNode(opType, inputs, [output], { name, ...options }));
    return output;
  }

  /** Folds batch and sequence as the old product had them folded. */
  #repeat(fold: Node, value: string): string {
    const node = cloneNode(fold);
    node.name = this.names.fresh(`${this.prefix}/${fold.opType}`);
    node.input = [value, ...fold.input.slice(1)];
    const output = this.names.fresh(`${node.name}_output_0`);
    node.output = [output];
    this.#nodes.push(node);
    return output;
  }

  #weight(name: string, dataType: number, dims: readonly number[], data: ArrayBufferView): string {
    const fresh = this.names.fresh(`${this.prefix.replace(/^\//, '').replaceAll('/', '.')}.${name}`);
    return this.model.graph.addInitializer(Tensor.create(fresh, dataType, dims, data));
  }

  #floatProduct(value: string, weight: Float32Array): string {
    const { inFeatures, outFeatures, inputType } = this.part;
    const data = encode(weight, inputType);
    return this.#node('MatMul', [value, this.#weight('weight', inputType, [inFeatures, outFeatures], data)]);
  }

  #add(value: string, bias: Float32Array): string {
    const { inputType, outFeatures } = this.part;
    return this.#node('Add', [
      value,
      this.#weight('bias', inputType, [outFeatures], encode(bias, inputType)),
    ]);
  }

  #blockProduct(value: string, weight: Float32Array): string {
    const { inFeatures, outFeatures, inputType } = this.part;
    const scaleType = inputType === DataType.FLOAT16 ? 'float16' : 'float32';
    const { codes, scales } = quantiseBlocks(weight, {
      inFeatures,
      outFeatures,
      bits: 8,
      blockSize: BLOCK_SIZE,
      scaleType,
    });
    const blocks = inFeatures / BLOCK_SIZE;
    const inputs = [
      value,
      this.#weight('weight_codes', DataType.UINT8, [outFeatures, blocks, BLOCK_SIZE], codes),
      this.#weight('weight_scales', inputType, [outFeatures, blocks], encode(scales, inputType)),
    ];
    needContribOperators(this.model);
    return this.#node('MatMulNBits', inputs, {
      domain: 'com.microsoft',
      attributes: {
        K: { int: inFeatures },
        N: { int: outFeatures },
        bits: { int: 8 },
        block_size: { int: BLOCK_SIZE },
        accuracy_level: { int: ACCURACY_LEVEL },
      },
    });
  }
}

function useBlocks(map: LinearMap, part: AffinePart, storage: MatrixStorage): boolean {
  const { inFeatures, inputType, quantised } = part;
  const possible =
    inFeatures % BLOCK_SIZE === 0 && (inputType === DataType.FLOAT || inputType === DataType.FLOAT16);
  if (storage === 'int8-blocks' && !possible) {
    throw new UsageError('MAP_STORAGE', `${nameOf(map)} cannot be stored in blocks.`, {
      expected: `a multiple of ${BLOCK_SIZE} inputs, of float32 or float16`,
      found: `${inFeatures} of ${dataTypeName(inputType)}`,
      hint: 'Use the storage "auto" or "float".',
    });
  }
  return possible && (storage === 'int8-blocks' || (storage === 'auto' && quantised));
}

function encode(values: Float32Array, dataType: number): ArrayBufferView {
  switch (dataType) {
    case DataType.FLOAT:
      return values;
    case DataType.FLOAT16:
      return toHalf(values);
    case DataType.DOUBLE:
      return Float64Array.from(values);
    default:
      throw new UsageError('MAP_STORAGE', 'Matrices of this type cannot be written.', {
        expected: 'float32, float16 or float64',
        found: dataTypeName(dataType),
      });
  }
}

function needContribOperators(model: Model): void {
  if (model.opsets.has('com.microsoft')) return;
  model.rest.opsetImport.push(create(OperatorSetIdProtoSchema, { domain: 'com.microsoft', version: 1n }));
}

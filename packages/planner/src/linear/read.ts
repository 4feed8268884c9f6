import {
  asFloat32,
  float32ToFloat16,
  type Session,
  type SessionOptions,
  seededRandom,
  type TensorValue,
} from '@cqil/runtime-gpu';
import { SubmodelCutter } from '../onnx/extract.js';
import { DataType, type Model, makeNode } from '../onnx/index.js';
import { withVariant } from '../variant/index.js';
import type { AffinePart } from './affine.js';
import { MapLocator, notAffine } from './locate.js';
import type { LinearMap } from './types.js';

/** What an affine map computes: `output = input · weight + bias`. */
export interface MapMatrix {
  /** Row-major `[inFeatures, outFeatures]`. */
  readonly weight: Float32Array;
  /** `[outFeatures]`; `undefined` where the map has no bias. */
  readonly bias: Float32Array | undefined;
  /**
   * Whether the map computes this matrix up to rounding in its type. If not, it rounds its input to few bits, as 8-bit
   * models do, and the matrix is what it stands for.
   */
  readonly exact: boolean;
}

/** What is held at once of the rows that are asked for, in and out. */
const BLOCK_BYTES = 32 * 1024 * 1024;

/**
 * Reads the matrix of a map by running it: the map alone is cut out of the graph and given zeros (for the bias) and the
 * rows of the identity, some at a time, so that any storage of weights that ONNX Runtime can compute with is read alike.
 * Besides the matrix itself the memory is bounded.
 *
 * @param model has the map's values: the one it was found in, or one rewritten from it
 * @throws AnatomyError `MAP_NOT_FOUND`; `MAP_NOT_AFFINE` also when what it computes on other inputs is not what the
 *   matrix gives; InferenceError from running it
 */
export async function readMatrix(
  model: Model,
  map: LinearMap,
  session: SessionOptions = {},
): Promise<MapMatrix> {
  const part = new MapLocator(model).locate(map);
  return withVariant(cutOut(model, part), session, async (opened) => {
    const reader = new MatrixReader(opened, part);
    const { weight, bias } = await reader.read();
    const exact = await reader.check(weight, bias);
    if (exact === undefined) throw notAffine(map, 'other values than those of its matrix');
    return { weight, bias: part.hasBias ? bias : undefined, exact };
  });
}

/** The map as a model of its own, batch and sequence folded or not as its products want. */
function cutOut(model: Model, part: AffinePart): Model {
  const copy = model.clone();
  const folds = new Set(part.folds.map(({ node }) => node.output[0]));
  copy.graph.nodes = copy.graph.nodes.map((node) =>
    node.output[0] !== undefined && folds.has(node.output[0])
      ? makeNode('Identity', [node.input[0] as string], [node.output[0]], { name: node.name })
      : node,
  );
  // Shapes that were declared for folded values no longer hold.
  copy.graph.valueInfo = [];
  const shape = part.rank2 ? ['rows', part.inFeatures] : ['batch', 'rows', part.inFeatures];
  return new SubmodelCutter(copy).cut([{ name: part.input, dataType: part.inputType, shape }], [part.output]);
}

class MatrixReader {
  constructor(
    readonly session: Session,
    readonly part: AffinePart,
  ) {}

  async read(): Promise<{ weight: Float32Array; bias: Float32Array }> {
    const { inFeatures, outFeatures } = this.part;
    const bias = await this.run(new Float32Array(inFeatures), 1);
    const weight = new Float32Array(inFeatures * outFeatures);
    const one = this.#unit(bias);
    const rows = Math.max(1, Math.floor(BLOCK_BYTES / (4 * (inFeatures + outFeatures))));
    for (let first = 0; first < inFeatures; first += rows) {
      const count = Math.min(rows, inFeatures - first);
      const identity = new Float32Array(count * inFeatures);
      for (let row = 0; row < count; row++) identity[row * inFeatures + first + row] = one;
      const results = await this.run(identity, count);
      for (let i = 0; i < results.length; i++) {
        const value = ((results[i] as number) - (bias[i % outFeatures] as number)) / one;
        weight[first * outFeatures + i] = value;
      }
    }
    return { weight, bias };
  }

  /**
   * What stands for 1 in the identity: a power of two, large where a bias is added, since the weight's last bits are lost
   * to a bias that is larger than it.
   */
  #unit(bias: Float32Array): number {
    if (bias.every((value) => value === 0)) return 1;
    return this.part.inputType === DataType.FLOAT16 || this.part.outputType === DataType.FLOAT16 ? 64 : 4096;
  }

  async run(rows: Float32Array, count: number): Promise<Float32Array> {
    const { input, output, rank2, inFeatures } = this.part;
    const dims = rank2 ? [count, inFeatures] : [1, count, inFeatures];
    const results = await this.session.run({ [input]: this.#tensor(rows, dims) }, [output]);
    return asFloat32(results[output] as TensorValue);
  }

  #tensor(data: Float32Array, dims: number[]): TensorValue {
    const { inputType } = this.part;
    if (inputType === DataType.FLOAT16) return { type: 'float16', dims, data: float32ToFloat16(data) };
    if (inputType === DataType.DOUBLE) return { type: 'float64', dims, data: Float64Array.from(data) };
    return { type: 'float32', dims, data };
  }

  /**
   * Compares what the map gives with its matrix on a few inputs of random signs and magnitudes, the same in each run.
   *
   * @returns whether they agree up to rounding in the map's type; `undefined` if not even as far as 8 bits go
   */
  async check(weight: Float32Array, bias: Float32Array): Promise<boolean | undefined> {
    const { inFeatures, outFeatures } = this.part;
    const random = seededRandom(1);
    const count = 4;
    // Eleven bits, which every type has, so that the map gets the values that the matrix is given.
    const draw = () => Math.round((random() * 2 - 1) * 1024) / 256;
    const inputs = Float32Array.from({ length: count * inFeatures }, draw);
    const found = await this.run(inputs, count);
    const unit = this.#epsilon() * (8 + Math.sqrt(inFeatures));
    let exact = true;
    let error = 0;
    let size = 0;
    for (let row = 0; row < count; row++) {
      const expected = new Float64Array(outFeatures);
      const magnitude = new Float64Array(outFeatures);
      for (let k = 0; k < inFeatures; k++) {
        const x = inputs[row * inFeatures + k] as number;
        for (let j = 0; j < outFeatures; j++) {
          const product = x * (weight[k * outFeatures + j] as number);
          expected[j] = (expected[j] as number) + product;
          magnitude[j] = (magnitude[j] as number) + Math.abs(product);
        }
      }
      for (let j = 0; j < outFeatures; j++) {
        const offset = bias[j] as number;
        const product = expected[j] as number;
        const apart = Math.abs((found[row * outFeatures + j] as number) - product - offset);
        if (!(apart <= unit * ((magnitude[j] as number) + Math.abs(offset)))) exact = false;
        error += apart * apart;
        size += product * product;
      }
    }
    if (exact) return true;
    // Inputs in 8 bits are off by some thousandths; what is not affine at all is off by its own size.
    return Math.sqrt(error) <= COARSE * Math.sqrt(size) ? false : undefined;
  }

  #epsilon(): number {
    const { inputType, outputType } = this.part;
    if (inputType === DataType.FLOAT16 || outputType === DataType.FLOAT16) return 2 ** -11;
    return 2 ** -24;
  }
}

/** How far from its matrix a map may be that rounds its input, relative to what the matrix gives. */
const COARSE = 0.05;

import { asFloat32, type SessionOptions, type TensorValue } from '@cqil/runtime-gpu';
import { Constants } from '../../linear/constants.js';
import { SubmodelCutter } from '../../onnx/extract.js';
import {
  attributeTensor,
  DataType,
  type Model,
  type Node,
  type Tensor,
  tensorAttribute,
} from '../../onnx/index.js';
import { withVariant } from '../../variant/index.js';

/** The elements of a value that is the same in every run. */
export interface ConstantValue {
  readonly dims: readonly number[];
  /** Element type, as ONNX Runtime names it: `float32`, `int64`, … */
  readonly type: string;
  /** Raw, little-endian. */
  readonly bytes: Uint8Array;
}

const TYPES: ReadonlyMap<number, string> = new Map([
  [DataType.FLOAT, 'float32'],
  [DataType.FLOAT16, 'float16'],
  [DataType.DOUBLE, 'float64'],
  [DataType.INT32, 'int32'],
  [DataType.INT64, 'int64'],
  [DataType.INT8, 'int8'],
  [DataType.UINT8, 'uint8'],
  [DataType.BOOL, 'bool'],
]);

/** Reads values of a graph that depend on weights alone: weights, constants, and what nodes compute of them. */
export class ConstantReader {
  readonly constants: Constants;
  readonly #producers: ReadonlyMap<string, Node>;
  readonly #known = new Map<string, Promise<ConstantValue>>();
  #cutter: SubmodelCutter | undefined;

  constructor(
    readonly model: Model,
    readonly session: SessionOptions = {},
  ) {
    this.constants = new Constants(model.graph);
    this.#producers = model.graph.producers();
  }

  has(value: string): boolean {
    return this.constants.has(value);
  }

  /** How many elements it has, without reading them; `undefined` where that cannot be told. */
  size(value: string): number | undefined {
    return this.constants.info(value)?.dims.reduce((a, b) => a * b, 1);
  }

  /** @throws InferenceError where it has to be computed and cannot be */
  async read(value: string): Promise<ConstantValue> {
    let known = this.#known.get(value);
    if (known === undefined) {
      known = this.#read(value);
      // Large ones are weights that are compared once.
      if ((this.size(value) ?? 0) <= 65_536) this.#known.set(value, known);
    }
    return known;
  }

  /** In float64, which holds every floating-point type's values exactly. */
  async numbers(value: string): Promise<Float64Array> {
    const { type, dims, bytes } = await this.read(value);
    const { buffer } = Uint8Array.from(bytes);
    if (type === 'float64') return new Float64Array(buffer);
    if (type === 'float32') return Float64Array.from(new Float32Array(buffer));
    if (type === 'int64') return Float64Array.from(new BigInt64Array(buffer), Number);
    if (type === 'int32') return Float64Array.from(new Int32Array(buffer));
    return Float64Array.from(asFloat32({ type: 'float16', dims, data: new Uint16Array(buffer) }));
  }

  async #read(value: string): Promise<ConstantValue> {
    const tensor = this.#stored(value);
    const type = tensor && TYPES.get(tensor.dataType);
    if (tensor !== undefined && type !== undefined)
      return { dims: tensor.dims, type, bytes: await tensor.bytes() };
    this.#cutter ??= new SubmodelCutter(this.model);
    return withVariant(this.#cutter.cut([], [value]), this.session, async (session) => {
      const result = (await session.run({}, [value]))[value] as TensorValue;
      const { data } = result as { data: Exclude<TensorValue['data'], readonly string[]> };
      const { buffer, byteOffset, byteLength } = data as ArrayBufferView;
      return { dims: result.dims, type: result.type, bytes: new Uint8Array(buffer, byteOffset, byteLength) };
    });
  }

  #stored(value: string): Tensor | undefined {
    const tensor = this.model.graph.initializers.get(value);
    if (tensor !== undefined) return tensor;
    const node = this.#producers.get(value);
    const attribute = node?.opType === 'Constant' ? tensorAttribute(node, 'value') : undefined;
    return attribute && attributeTensor(attribute);
  }
}

import { halfToFloat } from '../../gguf/half.js';
import {
  attributeTensor,
  DataType,
  type Graph,
  intAttribute,
  type Node,
  type Tensor,
} from '../../onnx/index.js';

/** Larger constants are weights, which nobody needs the values of. */
const SMALL = 64;

/** Reads small constants of a graph: initialisers and `Constant` nodes, seen through casts. */
export class ConstantValues {
  readonly #producers: ReadonlyMap<string, Node>;

  constructor(readonly graph: Graph) {
    this.#producers = graph.producers();
  }

  /** The elements, row-major; `undefined` for what is no constant, or a large one. */
  async numbers(value: string): Promise<number[] | undefined> {
    const tensor = this.graph.initializers.get(value);
    if (tensor !== undefined) return tensorNumbers(tensor);
    const node = this.#producers.get(value);
    switch (node?.opType) {
      case 'Constant':
        return constantNumbers(node);
      case 'Identity':
      case 'Cast':
      case 'Unsqueeze':
        return this.numbers(node.input[0] ?? '');
      default:
        return undefined;
    }
  }

  /** The one element of a scalar, or of a tensor with one element. */
  async scalar(value: string): Promise<number | undefined> {
    const numbers = await this.numbers(value);
    return numbers?.length === 1 ? numbers[0] : undefined;
  }

  /** Axes, given as an attribute or, in newer operator sets, as an input. */
  async axes(node: Node, input = 1): Promise<number[] | undefined> {
    const attribute = node.attribute.find(({ name }) => name === 'axes' || name === 'axis');
    if (attribute !== undefined) {
      return attribute.name === 'axis' ? [intAttribute(node, 'axis') ?? 0] : attribute.ints.map(Number);
    }
    return this.numbers(node.input[input] ?? '');
  }
}

async function constantNumbers(node: Node): Promise<number[] | undefined> {
  const [attribute] = node.attribute;
  switch (attribute?.name) {
    case 'value': {
      const tensor = attributeTensor(attribute);
      return tensor === undefined ? undefined : tensorNumbers(tensor);
    }
    case 'value_float':
      return [attribute.f];
    case 'value_int':
      return [Number(attribute.i)];
    case 'value_floats':
      return [...attribute.floats];
    case 'value_ints':
      return attribute.ints.map(Number);
    default:
      return undefined;
  }
}

async function tensorNumbers(tensor: Tensor): Promise<number[] | undefined> {
  if (tensor.elementCount > SMALL) return undefined;
  const { buffer } = Uint8Array.from(await tensor.bytes());
  switch (tensor.dataType) {
    case DataType.FLOAT:
      return [...new Float32Array(buffer)];
    case DataType.DOUBLE:
      return [...new Float64Array(buffer)];
    case DataType.FLOAT16:
      return Array.from(new Uint16Array(buffer), halfToFloat);
    case DataType.INT64:
      return Array.from(new BigInt64Array(buffer), Number);
    case DataType.INT32:
      return [...new Int32Array(buffer)];
    case DataType.BOOL:
    case DataType.UINT8:
      return [...new Uint8Array(buffer)];
    default:
      return undefined;
  }
}

import { type Graph, intAttribute, type Node, nodeInputs, tensorAttribute } from '../onnx/index.js';

/** What is known of a value that is the same in every run. */
export interface ConstantInfo {
  readonly dims: readonly number[];
  readonly dataType: number;
  /** Whether it is dequantised from codes. */
  readonly quantised: boolean;
}

const SHAPES = new Set(['Shape', 'Size']);
const RANDOM = /^(Random|Multinomial|Bernoulli)/;

/** Which values of a graph depend on weights alone. */
export class Constants {
  readonly #producers: ReadonlyMap<string, Node>;
  readonly #known = new Map<string, boolean>();

  constructor(readonly graph: Graph) {
    this.#producers = graph.producers();
  }

  has(value: string): boolean {
    const known = this.#known.get(value);
    if (known !== undefined) return known;
    // A value on a cycle, which no valid graph has, is no constant.
    this.#known.set(value, false);
    const constant = this.graph.initializers.has(value) || this.#computed(value);
    this.#known.set(value, constant);
    return constant;
  }

  #computed(value: string): boolean {
    const node = this.#producers.get(value);
    if (node === undefined || SHAPES.has(node.opType) || RANDOM.test(node.opType)) return false;
    return nodeInputs(node).every((input) => this.has(input));
  }

  /** Shape and type, seen through casts, transposes and dequantisation; `undefined` where they cannot be told. */
  info(value: string): ConstantInfo | undefined {
    const tensor = this.graph.initializers.get(value);
    if (tensor !== undefined) return { dims: tensor.dims, dataType: tensor.dataType, quantised: false };
    const node = this.#producers.get(value);
    const [first = '', second = ''] = node?.input ?? [];
    switch (node?.opType) {
      case 'Constant': {
        const proto = tensorAttribute(node, 'value')?.t;
        return proto && { dims: proto.dims.map(Number), dataType: proto.dataType, quantised: false };
      }
      case 'Identity':
        return this.info(first);
      case 'Cast': {
        const info = this.info(first);
        return info && { ...info, dataType: intAttribute(node, 'to') ?? info.dataType };
      }
      case 'DequantizeLinear': {
        const codes = this.info(first);
        const scale = this.info(second);
        return codes && scale && { dims: codes.dims, dataType: scale.dataType, quantised: true };
      }
      case 'Transpose': {
        const info = this.info(first);
        if (info === undefined) return undefined;
        const perm = node.attribute.find(({ name }) => name === 'perm')?.ints.map(Number);
        const order = perm ?? info.dims.map((_, axis) => info.dims.length - 1 - axis);
        return { ...info, dims: order.map((axis) => info.dims[axis] as number) };
      }
      default:
        return undefined;
    }
  }
}

import {
  type AttributeValue,
  DataType,
  type Graph,
  makeNode,
  Tensor,
  type TensorData,
} from '../onnx/index.js';
import type { FloatType } from './float-data.js';

/** Adds nodes whose outputs are named after them, and small constants that are shared. */
export class GraphBuilder {
  readonly graph: Graph;
  /** Type of the activations. */
  readonly floatType: FloatType;

  constructor(graph: Graph, floatType: FloatType) {
    this.graph = graph;
    this.floatType = floatType;
  }

  get floatDataType(): number {
    return this.floatType === 'float32' ? DataType.FLOAT : DataType.FLOAT16;
  }

  /** A node with one output; its value's name. */
  node(
    name: string,
    operator: string,
    inputs: readonly string[],
    attributes: Readonly<Record<string, AttributeValue>> = {},
    output = `${name}/output_0`,
  ): string {
    this.nodeWithOutputs(name, operator, inputs, [output], attributes);
    return output;
  }

  /** A node whose outputs are all named; `com.microsoft::X` for an operator of another domain. */
  nodeWithOutputs(
    name: string,
    operator: string,
    inputs: readonly string[],
    outputs: readonly string[],
    attributes: Readonly<Record<string, AttributeValue>> = {},
  ): void {
    const [domain, opType] = operator.includes('::') ? operator.split('::') : [undefined, operator];
    this.graph.addNode(
      makeNode(opType!, inputs, outputs, { name, attributes, ...(domain === undefined ? {} : { domain }) }),
    );
  }

  weight(
    name: string,
    dataType: number,
    dims: readonly number[],
    data: TensorData | ArrayBufferView,
  ): string {
    return this.graph.addInitializer(Tensor.create(name, dataType, dims, data));
  }

  int64(values: readonly number[] | number): string {
    const list = typeof values === 'number' ? [values] : values;
    const dims = typeof values === 'number' ? [] : [list.length];
    const name = `/model/constants/INT64/${typeof values === 'number' ? values : `[${list.join(', ')}]`}`;
    if (this.graph.initializers.has(name)) return name;
    return this.weight(name, DataType.INT64, dims, BigInt64Array.from(list, BigInt));
  }
}

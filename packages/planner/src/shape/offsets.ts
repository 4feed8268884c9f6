import type { ModelShape } from '@cqil/core';
import type { LayerAnatomy } from '../anatomy/index.js';
import { type Graph, intAttribute, type Model, type Node } from '../onnx/index.js';

/**
 * Blocks with offsets: their products read sums of blocks behind the input itself. A layer may mix such products with others
 * (Q4_K_M does); the shape knows one kind, that of most weights.
 */
export function offsetsOf({ graph }: Model, { attention, ffn }: LayerAnatomy): ModelShape['offsets'] {
  const nodes = [...(attention?.nodes ?? []), ...(ffn?.nodes ?? [])];
  const weights = { with: 0, without: 0 };
  let found: ModelShape['offsets'];
  for (const node of nodes) {
    if (node.opType !== 'MatMulNBits') continue;
    const digits = digitsBefore(graph, node);
    weights[digits === undefined ? 'without' : 'with'] +=
      (intAttribute(node, 'K') ?? 0) * (intAttribute(node, 'N') ?? 0);
    if (digits !== undefined) found ??= { block: blockSizeOf(node), digits };
  }
  return weights.with > weights.without ? found : undefined;
}

export const blockSizeOf = (node: Node): number => intAttribute(node, 'block_size') ?? 32;

/** How often a product reads the sums of its input's blocks; `undefined` where it does not. */
export function digitsBefore(graph: Graph, product: Node): number | undefined {
  const producers = graph.producers();
  const read = producers.get(product.input[0] ?? '');
  const sums = read?.opType === 'Concat' ? producers.get(read.input[1] ?? '')?.opType : undefined;
  return sums === 'ReduceSum' || sums === 'Pad' ? (read as Node).input.length - 1 : undefined;
}

/** How many nodes only make sums of blocks for the products. */
export function sumNodes(graph: Graph, nodes: readonly Node[]): number {
  const consumers = graph.consumers();
  const feeds = (node: Node, operators: readonly string[]) =>
    (consumers.get(node.output[0] ?? '') ?? []).some(({ opType }) => operators.includes(opType));
  return nodes.filter((node) => {
    switch (node.opType) {
      case 'Reshape':
        return feeds(node, ['ReduceSum']);
      case 'ReduceSum':
      case 'Pad':
        return feeds(node, ['Pad', 'Concat']);
      default:
        return node.opType === 'Concat' && feeds(node, ['MatMulNBits']);
    }
  }).length;
}

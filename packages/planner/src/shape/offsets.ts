import type { ModelShape } from '@cqil/core';
import type { LayerAnatomy } from '../anatomy/index.js';
import { type Graph, intAttribute, type Model, type Node } from '../onnx/index.js';

/** Blocks with offsets: their products read sums of blocks behind the input itself. */
export function offsetsOf({ graph }: Model, { ffn }: LayerAnatomy): ModelShape['offsets'] {
  const down = ffn?.nodes.findLast(({ opType }) => opType === 'MatMulNBits');
  const digits = down && digitsBefore(graph, down);
  return down === undefined || digits === undefined ? undefined : { block: blockSizeOf(down), digits };
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

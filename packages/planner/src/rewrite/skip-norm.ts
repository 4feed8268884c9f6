import { SKIP_NORMS } from '../anatomy/dataflow.js';
import type { BranchAnatomy, LayerAnatomy } from '../anatomy/index.js';
import { type AttributeValue, floatAttribute, makeNode, type Node } from '../onnx/index.js';

/** The branch whose sum is the layer's output. */
export function lastBranch(layer: LayerAnatomy): BranchAnatomy {
  return (layer.ffn ?? layer.attention) as BranchAnatomy;
}

/** Optional inputs that are left out at the end of a list need not be named. */
export function trimmed(inputs: readonly string[]): string[] {
  const list = [...inputs];
  while (list.at(-1) === '') list.pop();
  return list;
}

/** The norm of a fused skip norm alone: what it computed from the sum, computed from a value that is there. */
export function plainNorm(node: Node, input: string, name: string): Node {
  const epsilon = floatAttribute(node, 'epsilon') ?? 1e-12;
  const attributes: Record<string, AttributeValue> = { epsilon: { float: epsilon }, axis: { int: -1 } };
  const simplified = node.opType === 'SkipSimplifiedLayerNormalization';
  if (simplified) attributes.stash_type = { int: 1 };
  const { bias } = SKIP_NORMS[node.opType] as { bias: number };
  const opType = simplified ? 'SimplifiedLayerNormalization' : 'LayerNormalization';
  return makeNode(opType, trimmed([input, ...node.input.slice(2, bias)]), [node.output[0] as string], {
    name,
    attributes,
  });
}

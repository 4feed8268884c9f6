import { SKIP_NORMS, skipSumName } from '../anatomy/dataflow.js';
import { type AttributeValue, floatAttribute, type Model, makeNode, type Node } from '../onnx/index.js';

/**
 * A copy of a graph in which every fused `Skip…LayerNormalization` is the sums and the norm that it stands for, so
 * that each state of the residual stream is a value of its own (under the name that the anatomy gives it) and the
 * graph can be cut there.
 *
 * Source: the operators' definitions in ONNX Runtime's `docs/ContribOperators.md`.
 */
export function unfuseSkipNorms(model: Model): Model {
  const copy = model.clone();
  copy.graph.nodes = copy.graph.nodes.flatMap((node) =>
    node.domain === 'com.microsoft' && node.opType in SKIP_NORMS ? unfused(node) : [node],
  );
  // Shapes that were declared for the fused graph say nothing wrong, but nobody needs them.
  copy.graph.valueInfo = [];
  return copy;
}

function unfused(node: Node): Node[] {
  const simplified = node.opType === 'SkipSimplifiedLayerNormalization';
  const [input = '', skip = '', gamma = ''] = node.input;
  const beta = simplified ? '' : (node.input[3] ?? '');
  const bias = (simplified ? node.input[3] : node.input[4]) ?? '';
  const sum = skipSumName(node);
  const label = node.name === '' ? sum : node.name;
  const nodes: Node[] = [];
  const plain = bias === '' ? sum : `${sum}#without_bias`;
  nodes.push(makeNode('Add', [input, skip], [plain], { name: `${label}#skip` }));
  if (bias !== '') nodes.push(makeNode('Add', [plain, bias], [sum], { name: `${label}#bias` }));

  const attributes: Record<string, AttributeValue> = {
    axis: { int: -1 },
    epsilon: { float: floatAttribute(node, 'epsilon') ?? 1e-12 },
  };
  const [normed = '', mean = '', deviation = ''] = node.output;
  const outputs = simplified ? [normed, deviation] : [normed, mean, deviation];
  while (outputs.length > 1 && outputs.at(-1) === '') outputs.pop();
  nodes.push(
    makeNode(
      simplified ? 'SimplifiedLayerNormalization' : 'LayerNormalization',
      beta === '' ? [sum, gamma] : [sum, gamma, beta],
      outputs,
      { name: `${label}#norm`, attributes },
    ),
  );
  return nodes;
}

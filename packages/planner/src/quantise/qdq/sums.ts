import { Dataflow, isSkipNorm, SKIP_NORMS } from '../../anatomy/dataflow.js';
import { type Anatomy, analyze, type ResidualAdd } from '../../anatomy/index.js';
import { Constants } from '../../linear/constants.js';
import { type Model, makeNode, type Node } from '../../onnx/index.js';
import { Names } from '../../rewrite/names.js';
import { trimmed } from '../../rewrite/skip-norm.js';
import { unfuseSkipNorms } from '../../verify/unfuse.js';

/** An addition of values of the residual stream, or of what is added to it. */
export interface ResidualSum {
  readonly node: Node;
  /** What is added up. */
  readonly terms: readonly string[];
  readonly output: string;
  /** Which of the anatomy's residual additions it belongs to, counted from the embedding. */
  readonly place: number;
}

/** Every addition at a residual connection of a graph. */
export interface ResidualSums {
  /** In topological order. */
  readonly sums: readonly ResidualSum[];
  /** The stream behind each place, by place. */
  readonly streams: readonly string[];
}

const SUMS = new Set(['Add', 'Sum']);
/** What carries a value on unchanged. */
export const CARRIERS = new Set(['Cast', 'Flatten', 'Identity', 'Reshape', 'Squeeze', 'Unsqueeze']);

/**
 * Finds what is added up at residual connections: the stream and what its branches give are told by the anatomy, and
 * what is added to one of those, or makes one of those by an addition, is another: so the joins of groups are found,
 * bypass sums included, and the sum of token and position embeddings.
 *
 * @param model without fused sums, see `withPlainSums`
 * @param anatomy of that model
 */
export function residualSums(model: Model, anatomy: Anatomy): ResidualSums {
  const adds = anatomy.layers.flatMap(({ attention, ffn }) =>
    [attention?.add, ffn?.add].filter((add) => add !== undefined),
  );
  const found = closure(model, anatomy, adds);
  return { sums: placed(model, found, adds), streams: adds.map(({ sum }) => sum) };
}

function closure(model: Model, anatomy: Anatomy, adds: readonly ResidualAdd[]): Set<Node> {
  const { graph } = model;
  const constants = new Constants(graph);
  const values = new Set([anatomy.streamStart]);
  for (const { skip, sum, carried, contributions } of adds) {
    for (const value of [skip, sum, carried, ...contributions]) values.add(value);
  }
  const found = new Set<Node>();
  const joins = (node: Node): boolean => {
    const [output = ''] = node.output;
    const terms = node.input.filter((input) => input !== '');
    // A bias belongs to its product.
    if (terms.some((term) => constants.has(term))) return false;
    return [output, ...terms].some((value) => values.has(value));
  };
  for (let size = -1; size !== values.size + found.size; ) {
    size = values.size + found.size;
    for (const node of graph.nodes) {
      const [output = ''] = node.output;
      const [input = ''] = node.input;
      if (CARRIERS.has(node.opType) && (values.has(input) || values.has(output))) {
        if (!constants.has(input)) values.add(input).add(output);
      } else if (SUMS.has(node.opType) && joins(node)) {
        found.add(node);
        for (const value of [...node.input, output]) values.add(value);
      }
    }
  }
  return found;
}

function placed(model: Model, found: ReadonlySet<Node>, adds: readonly ResidualAdd[]): ResidualSum[] {
  const dataflow = new Dataflow(model.graph);
  const places = new Map<Node, number>();
  for (const [place, { skip, sum }] of adds.entries()) {
    for (const { node } of dataflow.reaching([sum], (value) => value === skip)) {
      if (found.has(node) && !places.has(node)) places.set(node, place);
    }
  }
  return dataflow.operations
    .filter(({ node }) => found.has(node))
    .map(({ node }) => ({
      node,
      terms: node.input.filter((input) => input !== ''),
      output: node.output[0] as string,
      // What stands before all of them makes what the first one reads.
      place: places.get(node) ?? 0,
    }));
}

/**
 * A copy of a graph in which the sums of fused `Skip…LayerNormalization` are additions. A bias that such a node adds
 * goes to the branch, not to the stream.
 *
 * @throws AnatomyError
 */
export function withPlainSums(source: Model): Model {
  const model = source.clone();
  if (!model.graph.nodes.some(isSkipNorm)) return model;
  const names = new Names(model);
  const biased = new Map<Node, Node>();
  for (const { attention, ffn } of analyze(model).layers) {
    for (const add of [attention?.add, ffn?.add]) {
      if (add?.fused !== true) continue;
      const { node, skip } = add;
      const { bias: at } = SKIP_NORMS[node.opType] as { bias: number };
      const bias = node.input[at] ?? '';
      if (bias === '') continue;
      const branch = node.input.findIndex((input, i) => i < 2 && input !== skip);
      const name = names.fresh(`${node.name || node.output[0]}/bias/Add`);
      const output = names.fresh(`${name}_output_0`);
      biased.set(node, makeNode('Add', [node.input[branch] as string, bias], [output], { name }));
      node.input = trimmed(node.input.map((input, i) => (i === at ? '' : i === branch ? output : input)));
    }
  }
  model.graph.nodes = model.graph.nodes.flatMap((node) => {
    const before = biased.get(node);
    return before === undefined ? [node] : [before, node];
  });
  return unfuseSkipNorms(model);
}

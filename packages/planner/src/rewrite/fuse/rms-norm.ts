import { dataTypeName, describeNode, makeNode } from '../../onnx/index.js';
import { GraphEdit } from '../graph-edit.js';
import { followRoot, GraphView, readersOf, squaredOf, weighted } from './norm-match.js';
import { type FusePass, Tally } from './types.js';

/**
 * `weight · x / √(mean(x²) + ε)` in plain operators → ONNX Runtime's `SimplifiedLayerNormalization`, which computes in
 * float32 whatever the type of x, as exporters' casts around the plain operators do.
 *
 * RMSNorm: Zhang, Sennrich, "Root Mean Square Layer Normalization", arXiv 1910.07467.
 */
export const fuseRmsNorms: FusePass = async ({ model, names }) => {
  const tally = new Tally('rms-norm');
  const view = new GraphView(model.graph);
  const edit = new GraphEdit(model.graph);
  for (const mean of model.graph.nodes.filter(({ opType }) => opType === 'ReduceMean')) {
    const square = view.producer(mean.input[0] ?? '');
    const squared = await squaredOf(view, square);
    // The variance of a LayerNorm is a mean of squares as well: that of a difference.
    if (squared === undefined || view.producer(squared)?.opType === 'Sub') continue;
    const normalised = await followRoot(view, mean, squared);
    if (!('output' in normalised)) {
      tally.refused(describeNode(mean), normalised.expected, normalised.found);
      continue;
    }
    const product = weighted(view, normalised.output);
    if (product === undefined) {
      tally.refused(
        describeNode(mean),
        'a product with a weight of one axis behind the norm',
        readersOf(view, normalised.output),
      );
      continue;
    }
    const type = view.types.get(product.output);
    const weight = ofType(view, product.weight, type);
    const input = ofType(view, squared, type);
    if (weight === undefined || input === undefined) {
      const found = [squared, product.weight, product.output].map((value) =>
        dataTypeName(view.types.get(value) ?? 0),
      );
      tally.refused(describeNode(mean), 'input, weight and output of one type', found.join(', '));
      continue;
    }
    const node = makeNode('SimplifiedLayerNormalization', [input, weight], [product.output], {
      name: names.fresh(product.node.name || `${product.output}/SimplifiedLayerNormalization`),
      attributes: { axis: { int: -1 }, epsilon: { float: normalised.epsilon }, stash_type: { int: 1 } },
    });
    edit.replace(product.node, [node]);
    tally.applied();
  }
  edit.apply();
  return tally.report();
};

/** A value, or what it was before it was cast, whichever has this type. */
export function ofType(view: GraphView, value: string, type: number | undefined): string | undefined {
  return [value, view.root(value)].find(
    (candidate) => type !== undefined && view.types.get(candidate) === type,
  );
}

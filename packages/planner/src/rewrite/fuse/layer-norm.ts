import { describeNode, makeNode } from '../../onnx/index.js';
import { GraphEdit } from '../graph-edit.js';
import { followRoot, GraphView, readersOf, squaredOf, weighted } from './norm-match.js';
import { ofType } from './rms-norm.js';
import { type FusePass, Tally } from './types.js';

/** `weight · (x − mean(x)) / √(var(x) + ε) + bias` in plain operators → `LayerNormalization` (operator set 17). */
export const fuseLayerNorms: FusePass = async ({ model, names }) => {
  const tally = new Tally('layer-norm');
  const view = new GraphView(model.graph);
  const edit = new GraphEdit(model.graph);
  for (const mean of model.graph.nodes.filter(({ opType }) => opType === 'ReduceMean')) {
    const squared = await squaredOf(view, view.producer(mean.input[0] ?? ''));
    const difference = squared === undefined ? undefined : view.producer(squared);
    if (squared === undefined || difference?.opType !== 'Sub') continue;
    const [input = '', subtracted = ''] = difference.input;
    const centre = view.producer(subtracted);
    const axes =
      centre?.opType === 'ReduceMean' && view.reads(centre, 0, input)
        ? await view.constants.axes(centre)
        : undefined;
    if (axes?.length !== 1 || axes[0] !== -1) {
      tally.refused(
        describeNode(mean),
        'the input less its own mean over the last axis',
        describeNode(difference),
      );
      continue;
    }
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
    if ((model.opsets.get('') ?? 0) < 17) {
      tally.refused(
        describeNode(mean),
        'operator set 17 or later, which has LayerNormalization',
        `${model.opsets.get('')}`,
      );
      continue;
    }
    const sum = view
      .readers(product.output, 'Add')
      .find((add) => view.weightDims(view.other(add, product.output) ?? '')?.length === 1);
    const last = sum ?? product.node;
    const weights = [product.weight, ...(sum === undefined ? [] : [view.other(sum, product.output) ?? ''])];
    const type = view.types.get(last.output[0] ?? '');
    const inputs = [input, ...weights].map((value) => ofType(view, value, type));
    if (!inputs.every((value) => value !== undefined)) {
      tally.refused(describeNode(mean), 'input, weights and output of one type', 'several');
      continue;
    }
    const node = makeNode('LayerNormalization', inputs, [last.output[0] ?? ''], {
      name: names.fresh(last.name || `${last.output[0]}/LayerNormalization`),
      attributes: { axis: { int: -1 }, epsilon: { float: normalised.epsilon } },
    });
    edit.replace(last, [node]);
    tally.applied();
  }
  edit.apply();
  return tally.report();
};

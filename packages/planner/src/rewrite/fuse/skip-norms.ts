import { analyze } from '../../anatomy/index.js';
import { Constants } from '../../linear/constants.js';
import { describeNode, floatAttribute, intAttribute, makeNode, type Node } from '../../onnx/index.js';
import { GraphEdit } from '../graph-edit.js';
import { needContribOperators } from './contrib.js';
import { GraphView } from './norm-match.js';
import { type FusePass, Tally } from './types.js';

const FUSED: Readonly<Record<string, string>> = {
  SimplifiedLayerNormalization: 'SkipSimplifiedLayerNormalization',
  LayerNormalization: 'SkipLayerNormalization',
};

/**
 * A sum on the residual stream and the norm that reads it → one `Skip…LayerNormalization`, which gives both. Where two
 * norms read one sum (GPT-NeoX), the first is fused with it.
 */
export const fuseSkipNorms: FusePass = async ({ model, names }) => {
  const tally = new Tally('skip-norm');
  const anatomy = analyze(model);
  const view = new GraphView(model.graph);
  const constants = new Constants(model.graph);
  const edit = new GraphEdit(model.graph);
  const branches = anatomy.layers.flatMap(({ attention, ffn }) =>
    [attention, ffn].filter((branch) => branch !== undefined),
  );
  for (const { add } of branches) {
    if (add.fused) continue;
    const { node, sum } = add;
    const refuse = (expected: string, found: string) => tally.refused(describeNode(node), expected, found);
    const norm = view.readers(sum, ...Object.keys(FUSED)).find((reader) => isPlainNorm(reader, sum));
    if (norm === undefined) {
      const readers = view.readers(sum).map(({ opType }) => opType);
      refuse(
        'a norm over the last axis that reads the sum',
        readers.length > 0 ? `read by ${readers.join(', ')}` : 'an output',
      );
      continue;
    }
    const constant = node.input.find((input) => constants.has(input));
    if (node.opType !== 'Add' || node.input.length !== 2 || constant !== undefined) {
      refuse(
        'a sum of two values of one shape',
        constant === undefined ? `${node.opType} of ${node.input.length}` : `the constant "${constant}"`,
      );
      continue;
    }
    const types = new Set([...node.input, ...norm.input].map((value) => view.types.get(value)));
    if (types.size !== 1) {
      refuse('sum and norm in one type', `${types.size} types`);
      continue;
    }
    const [left, right] = node.input;
    // The stream is the operator's `skip`, as in the builder's graphs.
    const [input = '', skip = ''] = left === add.skip ? [right, left] : [left, right];
    const [normed = ''] = norm.output;
    edit.replace(node, [
      makeNode(FUSED[norm.opType] as string, [input, skip, ...norm.input.slice(1)], [normed, '', '', sum], {
        name: names.fresh(`${norm.name || normed}/Skip`),
        domain: 'com.microsoft',
        attributes: { epsilon: { float: floatAttribute(norm, 'epsilon') ?? 1e-5 } },
      }),
    ]);
    edit.replace(norm, []);
    tally.applied();
  }
  edit.apply();
  if (tally.report().applied > 0) needContribOperators(model);
  return tally.report();
};

/** Over the last axis, of which a norm with a weight `[features]` takes no other in a graph of `[batch, seq, features]`. */
function isPlainNorm(norm: Node, sum: string): boolean {
  const axis = intAttribute(norm, 'axis') ?? -1;
  return (
    norm.input[0] === sum &&
    (axis === -1 || axis === 2) &&
    norm.output.slice(1).every((output) => output === '')
  );
}

import { intAttribute } from '../../onnx/index.js';
import { GraphEdit } from '../graph-edit.js';
import { elementTypes } from './element-types.js';
import { type FusePass, Tally } from './types.js';

/**
 * Removes casts to the type that a value has already, and `Identity`: exporters leave them around norms and softmax,
 * where the model would go on in float32 if it were in another type.
 */
export const removeNoOpCasts: FusePass = async ({ model }) => {
  const tally = new Tally('casts');
  const { graph } = model;
  const types = elementTypes(graph);
  const outputs = new Set(graph.outputs.map(({ name }) => name));
  const edit = new GraphEdit(graph);
  const sources = new Map<string, string>();
  for (const node of graph.nodes) {
    const [input = ''] = node.input;
    const [output = ''] = node.output;
    const type = types.get(input);
    const idle =
      node.opType === 'Cast'
        ? type !== undefined && type === intAttribute(node, 'to')
        : node.opType === 'Identity';
    if (!idle || input === '' || outputs.has(output)) continue;
    const source = sources.get(input) ?? input;
    sources.set(output, source);
    edit.read(output, source);
    tally.applied();
  }
  edit.apply();
  return tally.report();
};

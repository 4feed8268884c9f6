import { type Model, nodeInputs } from '../onnx/index.js';

/** The values that nodes read or the graph gives. */
export function readValues(model: Model): Set<string> {
  return new Set([
    ...model.graph.nodes.flatMap(nodeInputs),
    ...model.graph.outputs.map((output) => output.name),
  ]);
}

/**
 * Removes the weights that a change left without a reader; in old models they are listed among the inputs, too.
 *
 * @param before what was read before the change: weights that nothing read then are not its business
 */
export function dropUnreadWeights(model: Model, before: ReadonlySet<string>): void {
  const { graph } = model;
  const after = readValues(model);
  const unread = new Set(
    [...graph.initializers.keys()].filter((name) => before.has(name) && !after.has(name)),
  );
  for (const name of unread) graph.initializers.delete(name);
  graph.inputs = graph.inputs.filter(({ name }) => !unread.has(name));
  graph.valueInfo = graph.valueInfo.filter(({ name }) => !unread.has(name));
}

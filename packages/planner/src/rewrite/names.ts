import { type Model, nodeInputs } from '../onnx/index.js';

/** Value and node names that the graph does not have yet. */
export class Names {
  readonly #taken: Set<string>;
  constructor(model: Model) {
    this.#taken = new Set([
      ...model.graph.nodes.flatMap((node) => [node.name, ...node.output, ...nodeInputs(node)]),
      ...model.graph.initializers.keys(),
    ]);
  }
  fresh(wanted: string): string {
    let name = wanted;
    for (let i = 1; this.#taken.has(name); i++) name = `${wanted}_${i}`;
    this.#taken.add(name);
    return name;
  }
}

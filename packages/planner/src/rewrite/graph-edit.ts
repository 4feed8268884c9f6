import { clone } from '@bufbuild/protobuf';
import { topologicalOrder } from '../anatomy/dataflow.js';
import { AttributeProtoSchema, type GraphProto } from '../onnx/gen/onnx_pb.js';
import { type Graph, type Node, nodeInputs } from '../onnx/index.js';

/**
 * A change of a graph, collected and then made at once: nodes put in place of others, values read under another
 * name. The order stays a topological one, and what the change leaves without a reader is removed.
 */
export class GraphEdit {
  readonly #graph: Graph;
  readonly #substitutes = new Map<Node, Node[]>();
  readonly #renames = new Map<string, string>();
  readonly #liveBefore: ReadonlySet<Node>;

  constructor(graph: Graph) {
    this.#graph = graph;
    this.#liveBefore = liveNodes(graph);
  }

  /** Puts nodes where another stood. Called again for the same node, adds to what stands there now. */
  replace(node: Node, by: readonly Node[]): void {
    const list = this.#substitutes.get(node);
    if (list === undefined) this.#substitutes.set(node, [...by]);
    else list.push(...by);
  }

  /** From now on, whoever reads `value` reads `instead`; nodes that the edit itself puts in are left alone. */
  read(value: string, instead: string): void {
    if (value !== instead) this.#renames.set(value, instead);
  }

  /** @returns whether the nodes could be ordered; if not, some of them wait for each other */
  apply(): boolean {
    const graph = this.#graph;
    const kept = new Set<Node>();
    graph.nodes = graph.nodes.flatMap((node) => {
      const substitute = this.#substitutes.get(node);
      if (substitute !== undefined) return substitute;
      renameInputs(node, this.#renames);
      kept.add(node);
      return [node];
    });
    const live = liveNodes(graph);
    graph.nodes = graph.nodes.filter(
      (node) => live.has(node) || (kept.has(node) && !this.#liveBefore.has(node)),
    );
    const ordered = topologicalOrder(graph);
    const complete = ordered.length === graph.nodes.length;
    if (complete) graph.nodes = ordered;
    const values = new Set(graph.nodes.flatMap((node) => node.output));
    graph.valueInfo = graph.valueInfo.filter(
      (info) => values.has(info.name) || graph.initializers.has(info.name),
    );
    return complete;
  }
}

function liveNodes(graph: Graph): Set<Node> {
  const producers = graph.producers();
  const live = new Set<Node>();
  const open = graph.outputs.map((output) => output.name);
  for (let value = open.pop(); value !== undefined; value = open.pop()) {
    const node = producers.get(value);
    if (node === undefined || live.has(node)) continue;
    live.add(node);
    open.push(...nodeInputs(node));
  }
  return live;
}

export function renameInputs(node: Node, names: ReadonlyMap<string, string>): void {
  node.input = node.input.map((input) => names.get(input) ?? input);
  for (const [index, attribute] of node.attribute.entries()) {
    if (attribute.g === undefined && attribute.graphs.length === 0) continue;
    // Attributes are shared between copies of a model.
    const own = clone(AttributeProtoSchema, attribute);
    if (own.g !== undefined) renameCaptured(own.g, names);
    for (const graph of own.graphs) renameCaptured(graph, names);
    node.attribute[index] = own;
  }
}

/** Values of a subgraph cannot have the names of outer ones (ONNX: names are unique across nested graphs). */
function renameCaptured(graph: GraphProto, names: ReadonlyMap<string, string>): void {
  for (const node of graph.node) renameInputs(node, names);
  for (const output of graph.output) output.name = names.get(output.name) ?? output.name;
}

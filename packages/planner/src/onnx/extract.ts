import { create } from '@bufbuild/protobuf';
import { ModelFormatError } from '@cqil/core';
import { makeValueInfo } from './build.js';
import { GraphProtoSchema, ModelProtoSchema, ValueInfoProtoSchema } from './gen/onnx_pb.js';
import { cloneNode, describeNode, Graph, Model, type Node, nodeInputs, type ValueInfo } from './model.js';

/** A value at which a graph is cut: it becomes an input. */
export interface CutInput {
  readonly name: string;
  /** Element type, as in `DataType`. */
  readonly dataType: number;
  /** Numbers, and names for dimensions that differ from run to run. */
  readonly shape: readonly (number | string)[];
}

export interface ExtractOptions {
  /**
   * Values that have the shape of a cut value: where *only their shape* is read, that of the cut value is taken
   * instead, by name. Exporters read the sequence length off whatever value is at hand, so without this a layer
   * in the middle would need all layers before it.
   */
  readonly sameShape?: ReadonlyMap<string, string>;
}

/** Operators that read nothing of a value but its shape. */
const SHAPE_ONLY = new Set(['Shape', 'Size']);

/**
 * Cuts out the part of a graph that computes `outputs` from `inputs`. Graph inputs that it needs besides stay
 * inputs; weights are shared with the source, only those that are needed. See `SubmodelCutter` for several cuts
 * of one graph.
 *
 * @throws ModelFormatError `ONNX_CUT` when an output is not computed in the graph
 */
export function extractSubmodel(
  model: Model,
  inputs: readonly CutInput[],
  outputs: readonly string[],
  options: ExtractOptions = {},
): Model {
  return new SubmodelCutter(model).cut(inputs, outputs, options);
}

/** Cuts submodels out of one graph; the source is not changed and must not change meanwhile. */
export class SubmodelCutter {
  readonly #model: Model;
  readonly #producers: ReadonlyMap<string, Node>;
  readonly #position: ReadonlyMap<Node, number>;
  readonly #declared: ReadonlyMap<string, ValueInfo>;

  constructor(model: Model) {
    this.#model = model;
    this.#producers = model.graph.producers();
    this.#position = new Map(model.graph.nodes.map((node, index) => [node, index]));
    this.#declared = new Map(
      [...model.graph.valueInfo, ...model.graph.outputs].map((info) => [info.name, info]),
    );
  }

  /** As `extractSubmodel`. */
  cut(inputs: readonly CutInput[], outputs: readonly string[], options: ExtractOptions = {}): Model {
    const cuts = new Set(inputs.map(({ name }) => name));
    const { byData, byShape } = this.#reach(outputs, cuts, options.sameShape ?? new Map());
    const nodes = [...byData, ...byShape]
      .sort((a, b) => (this.#position.get(a) as number) - (this.#position.get(b) as number))
      .map((node) => (byShape.has(node) ? redirected(node, options.sameShape ?? new Map()) : node));

    const { graph } = this.#model;
    const made = new Set(nodes.flatMap((node) => node.output));
    const read = new Set(nodes.flatMap(nodeInputs));
    for (const output of outputs) {
      if (made.has(output)) continue;
      throw new ModelFormatError('ONNX_CUT', `"${output}" cannot be cut out of the graph.`, {
        expected: 'a value that a node computes from the inputs of the cut',
        found: this.#producers.has(output) ? 'an input of the cut' : 'no node that makes it',
      });
    }
    const initializers = new Map(
      [...graph.initializers].filter(([name]) => read.has(name) && !cuts.has(name)),
    );
    const kept = graph.feeds.filter((feed) => read.has(feed.name) && !cuts.has(feed.name));
    const sparse = graph.rest.sparseInitializer.filter(({ values }) => read.has(values?.name ?? ''));
    const available = new Set([
      ...made,
      ...cuts,
      ...initializers.keys(),
      ...sparse.map(({ values }) => values?.name ?? ''),
      ...kept.map(({ name }) => name),
    ]);
    for (const node of nodes) {
      const missing = nodeInputs(node).find((input) => !available.has(input));
      if (missing === undefined) continue;
      throw new ModelFormatError('ONNX_CUT', `${describeNode(node)} reads a value that nothing makes.`, {
        expected: 'a whole graph',
        found: `"${missing}"`,
      });
    }
    return new Model(
      Object.assign(create(ModelProtoSchema), this.#model.rest),
      new Graph({
        rest: create(GraphProtoSchema, { name: graph.rest.name, sparseInitializer: sparse }),
        nodes,
        initializers,
        inputs: [
          ...inputs
            .filter(({ name }) => read.has(name))
            .map((i) => makeValueInfo(i.name, i.dataType, i.shape)),
          ...kept,
        ],
        // A value of unknown type is declared by name alone; ONNX Runtime infers the rest.
        outputs: outputs.map((name) => this.#declared.get(name) ?? create(ValueInfoProtoSchema, { name })),
      }),
      this.#model.file,
    );
  }

  /** The nodes that outputs depend on up to the cuts, told apart by whether more than a shape is wanted of them. */
  #reach(
    outputs: readonly string[],
    cuts: ReadonlySet<string>,
    sameShape: ReadonlyMap<string, string>,
  ): { byData: Set<Node>; byShape: Set<Node> } {
    const byData = new Set<Node>();
    const shapeReads: string[] = [];
    for (const open = [...outputs]; open.length > 0; ) {
      const value = open.pop() as string;
      if (cuts.has(value)) continue;
      const node = this.#producers.get(value);
      if (node === undefined || byData.has(node)) continue;
      byData.add(node);
      if (!SHAPE_ONLY.has(node.opType)) open.push(...nodeInputs(node));
      else shapeReads.push(...node.input.filter((input) => !sameShape.has(input)));
    }
    const byShape = new Set([...byData].filter((node) => SHAPE_ONLY.has(node.opType)));
    for (const node of byShape) byData.delete(node);
    for (const open = shapeReads; open.length > 0; ) {
      const value = open.pop() as string;
      if (cuts.has(value)) continue;
      const node = this.#producers.get(value);
      if (node === undefined || byData.has(node) || byShape.has(node)) continue;
      byShape.add(node);
      // What a subgraph captures cannot be redirected, only what stands among the node's own inputs.
      const own = new Set(node.input);
      open.push(...nodeInputs(node).filter((input) => !(own.has(input) && sameShape.has(input))));
    }
    return { byData, byShape };
  }
}

function redirected(node: Node, to: ReadonlyMap<string, string>): Node {
  if (!node.input.some((input) => to.has(input))) return node;
  const copy = cloneNode(node);
  copy.input = node.input.map((input) => to.get(input) ?? input);
  return copy;
}

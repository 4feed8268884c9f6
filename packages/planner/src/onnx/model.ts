import { create } from '@bufbuild/protobuf';
import {
  type AttributeProto,
  type GraphProto,
  GraphProtoSchema,
  type ModelProto,
  ModelProtoSchema,
  type NodeProto,
  NodeProtoSchema,
  OperatorSetIdProtoSchema,
  StringStringEntryProtoSchema,
  type ValueInfoProto,
} from './gen/onnx_pb.js';
import type { Tensor } from './tensor.js';

/** A node of the graph: the protobuf message itself, so that fields this version does not know survive. */
export type Node = NodeProto;
export type Attribute = AttributeProto;
export type ValueInfo = ValueInfoProto;

/**
 * A graph as a list of nodes over named values. The nodes, inputs and outputs are protobuf messages; the
 * initialisers are `Tensor`s, whose bytes may still be on disk.
 */
export class Graph {
  /** Everything else of the graph: name, documentation, annotations, sparse initialisers, unknown fields. */
  readonly rest: GraphProto;
  nodes: Node[];
  readonly initializers: Map<string, Tensor>;
  inputs: ValueInfo[];
  outputs: ValueInfo[];
  valueInfo: ValueInfo[];

  constructor(parts: {
    rest?: GraphProto;
    nodes?: Node[];
    initializers?: Map<string, Tensor>;
    inputs?: ValueInfo[];
    outputs?: ValueInfo[];
    valueInfo?: ValueInfo[];
  }) {
    this.rest = parts.rest ?? create(GraphProtoSchema);
    this.nodes = parts.nodes ?? [];
    this.initializers = parts.initializers ?? new Map();
    this.inputs = parts.inputs ?? [];
    this.outputs = parts.outputs ?? [];
    this.valueInfo = parts.valueInfo ?? [];
  }

  addNode(node: Node): Node {
    this.nodes.push(node);
    return node;
  }

  addInitializer(tensor: Tensor): string {
    this.initializers.set(tensor.name, tensor);
    return tensor.name;
  }

  /** Graph inputs that the caller must feed: older models list initialisers among their inputs, too. */
  get feeds(): ValueInfo[] {
    return this.inputs.filter((input) => !this.initializers.has(input.name));
  }

  /** Node by output value. */
  producers(): Map<string, Node> {
    const map = new Map<string, Node>();
    for (const node of this.nodes) for (const output of node.output) if (output !== '') map.set(output, node);
    return map;
  }

  /** Nodes by input value, values captured by subgraphs included. */
  consumers(): Map<string, Node[]> {
    const map = new Map<string, Node[]>();
    for (const node of this.nodes) {
      for (const input of new Set(nodeInputs(node))) {
        const list = map.get(input);
        if (list === undefined) map.set(input, [node]);
        else list.push(node);
      }
    }
    return map;
  }
}

/** An ONNX model: a graph, its operator sets, and what its maker wrote about it. */
export class Model {
  /** Everything but the graph. */
  readonly rest: ModelProto;
  readonly graph: Graph;
  /** The file it was read from. */
  readonly file: string | undefined;

  constructor(rest: ModelProto, graph: Graph, file?: string) {
    this.rest = rest;
    this.graph = graph;
    this.file = file;
  }

  static create(options: {
    producer: string;
    producerVersion?: string;
    irVersion: number;
    opsets: Readonly<Record<string, number>>;
    graphName?: string;
  }): Model {
    const rest = create(ModelProtoSchema, {
      irVersion: BigInt(options.irVersion),
      producerName: options.producer,
      opsetImport: Object.entries(options.opsets).map(([domain, version]) =>
        create(OperatorSetIdProtoSchema, { domain, version: BigInt(version) }),
      ),
    });
    if (options.producerVersion !== undefined) rest.producerVersion = options.producerVersion;
    const graph = new Graph({ rest: create(GraphProtoSchema, { name: options.graphName ?? 'main_graph' }) });
    return new Model(rest, graph);
  }

  /** Operator set version by domain; `''` is ONNX's own (`ai.onnx` is folded into it). */
  get opsets(): Map<string, number> {
    return new Map(
      this.rest.opsetImport.map(({ domain, version }) => [
        domain === 'ai.onnx' ? '' : domain,
        Number(version),
      ]),
    );
  }

  metadata(key: string): string | undefined {
    return this.rest.metadataProps.find((entry) => entry.key === key)?.value;
  }

  setMetadata(key: string, value: string): void {
    const entry = this.rest.metadataProps.find((candidate) => candidate.key === key);
    if (entry !== undefined) entry.value = value;
    else this.rest.metadataProps.push(create(StringStringEntryProtoSchema, { key, value }));
  }

  /** A copy whose graph can be changed; tensors and attributes, which nobody changes in place, are shared. */
  clone(): Model {
    const rest = Object.assign(create(ModelProtoSchema), this.rest);
    rest.opsetImport = [...this.rest.opsetImport];
    rest.metadataProps = this.rest.metadataProps.map((entry) =>
      Object.assign(create(StringStringEntryProtoSchema), entry),
    );
    const graph = new Graph({
      rest: Object.assign(create(GraphProtoSchema), this.graph.rest),
      nodes: this.graph.nodes.map(cloneNode),
      initializers: new Map(this.graph.initializers),
      inputs: [...this.graph.inputs],
      outputs: [...this.graph.outputs],
      valueInfo: [...this.graph.valueInfo],
    });
    return new Model(rest, graph, this.file);
  }
}

/** A copy whose inputs, outputs and list of attributes can be changed; the attributes themselves are shared. */
export function cloneNode(node: Node): Node {
  const copy = Object.assign(create(NodeProtoSchema), node);
  copy.input = [...node.input];
  copy.output = [...node.output];
  copy.attribute = [...node.attribute];
  return copy;
}

/** `MatMul`, or `com.microsoft::MatMulNBits` for an operator of another domain. */
export function operatorName(node: Node): string {
  return node.domain === '' || node.domain === 'ai.onnx' ? node.opType : `${node.domain}::${node.opType}`;
}

/** How an error names a node: its name, or its operator and first output where it has none. */
export function describeNode(node: Node): string {
  return node.name !== '' ? `${node.opType} "${node.name}"` : `${node.opType} -> "${node.output[0] ?? ''}"`;
}

/** What a node reads: its inputs, and the outer values that its subgraphs (`If`, `Loop`, `Scan`) capture. */
export function nodeInputs(node: Node): string[] {
  const inputs = node.input.filter((input) => input !== '');
  for (const subgraph of subgraphs(node)) inputs.push(...capturedValues(subgraph));
  return inputs;
}

export function subgraphs(node: Node): GraphProto[] {
  const graphs: GraphProto[] = [];
  for (const attribute of node.attribute) {
    if (attribute.g !== undefined) graphs.push(attribute.g);
    graphs.push(...attribute.graphs);
  }
  return graphs;
}

function capturedValues(graph: GraphProto): string[] {
  const own = new Set<string>([
    ...graph.input.map((input) => input.name),
    ...graph.initializer.map((tensor) => tensor.name),
  ]);
  const captured = new Set<string>();
  for (const node of graph.node) {
    for (const input of nodeInputs(node)) if (!own.has(input)) captured.add(input);
    for (const output of node.output) own.add(output);
  }
  for (const output of graph.output) if (!own.has(output.name)) captured.add(output.name);
  return [...captured];
}

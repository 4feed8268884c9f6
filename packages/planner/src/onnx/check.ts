import { ModelFormatError } from '@cqil/core';
import { elementType, shapeOf } from './build.js';
import { bitsPerElement, DataType, dataTypeName } from './data-types.js';
import type { AttributeProto, GraphProto, NodeProto } from './gen/onnx_pb.js';
import { describeNode, type Model, nodeInputs, subgraphs, type ValueInfo } from './model.js';

/**
 * Checks a model by the structural rules of the ONNX specification (`docs/IR.md`): what the ONNX checker asks of
 * a model, apart from the operators' own schemas, which ONNX Runtime checks when it loads the graph.
 *
 * @throws ModelFormatError the first of `structuralFaults`
 */
export function checkModel(model: Model): void {
  const [fault] = structuralFaults(model);
  if (fault !== undefined) throw fault;
}

/**
 * Everything that is structurally wrong with a model, each fault with the node and the value it is about; none
 * for a sound one. Codes: `ONNX_IR_VERSION`, `ONNX_OPSET`, `ONNX_NAME`, `ONNX_DUPLICATE_NAME`,
 * `ONNX_NODE_ORDER`, `ONNX_CYCLE`, `ONNX_DANGLING_INPUT`, `ONNX_OUTPUT_MISSING`, `ONNX_VALUE_TYPE`,
 * `ONNX_TENSOR_TYPE`, `ONNX_TENSOR_SHAPE`, `ONNX_ATTRIBUTE`.
 */
export function structuralFaults(model: Model): ModelFormatError[] {
  const faults: ModelFormatError[] = [];
  const report: Report = (code, message, expected, found) =>
    faults.push(new ModelFormatError(code, message, { expected, found }));
  checkHeader(model, report);
  checkInitializers(model, report);
  for (const info of [...model.graph.inputs, ...model.graph.outputs]) checkValueInfo(info, report);
  checkTopGraph(model, report);
  return faults;
}

type Report = (code: string, message: string, expected: string, found: string) => void;

function checkHeader(model: Model, report: Report): void {
  if (model.rest.irVersion < 1n) {
    report(
      'ONNX_IR_VERSION',
      'The model names no IR version.',
      'a version of 1 or more',
      `${model.rest.irVersion}`,
    );
  }
  const seen = new Set<string>();
  for (const { domain, version } of model.rest.opsetImport) {
    const name = normalDomain(domain);
    if (seen.has(name))
      report('ONNX_OPSET', `Operator set "${name}" is imported twice.`, 'one version a domain', 'two');
    if (version < 1n) {
      report('ONNX_OPSET', `Operator set "${name}" has a wrong version.`, '1 or more', `${version}`);
    }
    seen.add(name);
  }
  if (model.graph.rest.name === '') report('ONNX_NAME', 'The graph has no name.', 'a name', 'none');
}

function checkInitializers(model: Model, report: Report): void {
  const { graph } = model;
  const inputs = new Set(graph.inputs.map((input) => input.name));
  for (const [name, tensor] of graph.initializers) {
    if (name === '' || tensor.name !== name) {
      report('ONNX_NAME', 'An initialiser has no name, or two.', `"${name}"`, `"${tensor.name}"`);
    }
    if (
      tensor.dataType !== DataType.STRING &&
      !isComplex(tensor.dataType) &&
      bitsPerElement(tensor.dataType) === undefined
    ) {
      report(
        'ONNX_TENSOR_TYPE',
        `Initialiser "${name}" has no known type.`,
        'an element type of the ONNX specification',
        dataTypeName(tensor.dataType),
      );
    }
    if (tensor.header.dims.some((dim) => dim < 0n)) {
      report(
        'ONNX_TENSOR_SHAPE',
        `Initialiser "${name}" has a negative dimension.`,
        'dimensions of 0 or more',
        `[${tensor.header.dims.join(', ')}]`,
      );
    }
    // Before IR version 4 every initialiser was an input with a default.
    if (model.rest.irVersion < 4n && !inputs.has(name)) {
      report(
        'ONNX_DANGLING_INPUT',
        `Initialiser "${name}" is no graph input.`,
        'every initialiser among the inputs (IR version 3 and below)',
        'it is missing there',
      );
    }
  }
}

function isComplex(type: number): boolean {
  return type === DataType.COMPLEX64 || type === DataType.COMPLEX128;
}

function checkValueInfo(info: ValueInfo, report: Report): void {
  if (info.name === '') report('ONNX_NAME', 'A graph input or output has no name.', 'a name', 'none');
  const kind = info.type?.value.case;
  if (kind === undefined || (kind === 'tensorType' && (elementType(info) ?? 0) === DataType.UNDEFINED)) {
    report('ONNX_VALUE_TYPE', `"${info.name}" has no type.`, 'a tensor with an element type', 'none');
  }
}

function checkTopGraph(model: Model, report: Report): void {
  const { graph, opsets } = model;
  const known = new Set<string>();
  for (const { name } of graph.inputs) {
    if (known.has(name)) duplicate(report, name, 'a graph input');
    known.add(name);
  }
  for (const name of graph.initializers.keys()) known.add(name);
  for (const sparse of graph.rest.sparseInitializer) known.add(sparse.values?.name ?? '');
  const scope: Scope = {
    known,
    outerMakers: new Map(),
    opsets: new Set(opsets.keys()),
    cyclic: () => cyclicNodes(graph.nodes),
    report,
  };
  checkNodes(graph.nodes, scope);
  checkOutputs(graph.outputs, scope.known, report);
}

interface Scope {
  /** Names of this graph and the graphs around it that can be read so far. */
  readonly known: Set<string>;
  /** Nodes of the graphs around this one, by what they make. */
  readonly outerMakers: ReadonlyMap<string, NodeProto>;
  readonly opsets: ReadonlySet<string>;
  readonly cyclic: () => ReadonlySet<NodeProto>;
  readonly report: Report;
}

function checkNodes(nodes: readonly NodeProto[], scope: Scope): void {
  const { known, opsets, report } = scope;
  const makers = new Map(scope.outerMakers);
  for (const node of nodes) for (const output of node.output) if (output !== '') makers.set(output, node);
  let cyclic: ReadonlySet<NodeProto> | undefined;
  for (const node of nodes) {
    const label = describeNode(node);
    if (node.opType === '') report('ONNX_NAME', `${label} has no operator.`, 'an operator type', 'none');
    if (!opsets.has(normalDomain(node.domain))) {
      report(
        'ONNX_OPSET',
        `${label} is of an operator set that the model does not import.`,
        `an import of "${normalDomain(node.domain)}"`,
        `imports of ${[...opsets].map((name) => `"${name}"`).join(', ') || 'none'}`,
      );
    }
    // Only the node's own inputs: what its subgraphs capture is looked at inside them.
    for (const input of node.input) {
      if (input === '' || known.has(input)) continue;
      const maker = makers.get(input);
      if (maker === undefined) {
        report(
          'ONNX_DANGLING_INPUT',
          `${label} reads a value that nothing makes.`,
          'a graph input, an initialiser or the output of a node',
          `"${input}"`,
        );
        continue;
      }
      cyclic ??= scope.cyclic();
      const cycle = cyclic.has(node) && cyclic.has(maker);
      report(
        cycle ? 'ONNX_CYCLE' : 'ONNX_NODE_ORDER',
        cycle ? `${label} waits for itself.` : `${label} stands before what it reads.`,
        'nodes in topological order',
        `"${input}", made by ${describeNode(maker)}`,
      );
    }
    checkAttributes(node, label, report);
    for (const graph of subgraphs(node)) checkSubgraph(graph, scope, makers);
    for (const output of node.output) {
      if (output === '') continue;
      if (known.has(output)) duplicate(report, output, label);
      known.add(output);
    }
  }
}

function checkSubgraph(graph: GraphProto, outer: Scope, outerMakers: Scope['outerMakers']): void {
  const known = new Set(outer.known);
  for (const { name } of [...graph.input, ...graph.initializer]) {
    if (outer.known.has(name)) duplicate(outer.report, name, `the subgraph "${graph.name}"`);
    known.add(name);
  }
  const scope: Scope = { ...outer, known, outerMakers, cyclic: () => cyclicNodes(graph.node) };
  checkNodes(graph.node, scope);
  checkOutputs(graph.output, known, outer.report);
}

function checkOutputs(outputs: readonly ValueInfo[], known: ReadonlySet<string>, report: Report): void {
  const seen = new Set<string>();
  for (const { name } of outputs) {
    if (!known.has(name)) {
      report('ONNX_OUTPUT_MISSING', `No node makes the output "${name}".`, 'a value of the graph', 'none');
    }
    if (seen.has(name)) duplicate(report, name, 'a graph output');
    seen.add(name);
  }
}

function duplicate(report: Report, name: string, by: string): void {
  report(
    'ONNX_DUPLICATE_NAME',
    `"${name}" is made twice.`,
    'every value made once (SSA)',
    `made again by ${by}`,
  );
}

/** Which fields an attribute of each type fills (`AttributeProto.AttributeType`). */
const ATTRIBUTE_FIELDS: Readonly<Record<number, (a: AttributeProto) => boolean>> = {
  3: (a) => a.s.length > 0,
  4: (a) => a.t !== undefined,
  5: (a) => a.g !== undefined,
  6: (a) => a.floats.length > 0,
  7: (a) => a.ints.length > 0,
  8: (a) => a.strings.length > 0,
  9: (a) => a.tensors.length > 0,
  10: (a) => a.graphs.length > 0,
  11: (a) => a.sparseTensor !== undefined,
  12: (a) => a.sparseTensors.length > 0,
  13: (a) => a.tp !== undefined,
  14: (a) => a.typeProtos.length > 0,
};
/** FLOAT, INT: a zero may be left out on the wire. */
const SCALAR_TYPES = [1, 2];
/** TENSOR, GRAPH, SPARSE_TENSOR, TYPE_PROTO: messages, which cannot be left out. */
const MESSAGE_TYPES = [4, 5, 11, 13];

function checkAttributes(node: NodeProto, label: string, report: Report): void {
  const names = new Set<string>();
  for (const attribute of node.attribute) {
    const bad = (expected: string, found: string) =>
      report('ONNX_ATTRIBUTE', `${label} has a wrong attribute "${attribute.name}".`, expected, found);
    if (attribute.name === '') bad('a name', 'none');
    if (names.has(attribute.name)) bad('each attribute once', 'twice');
    names.add(attribute.name);
    const { type } = attribute;
    const filled = Object.keys(ATTRIBUTE_FIELDS)
      .map(Number)
      .filter((key) => ATTRIBUTE_FIELDS[key]?.(attribute));
    if (attribute.refAttrName !== '') continue;
    if (type === 0) bad('a type', 'none');
    else if (!SCALAR_TYPES.includes(type) && ATTRIBUTE_FIELDS[type] === undefined) {
      bad('a type of the ONNX specification', `type ${type}`);
    } else if (MESSAGE_TYPES.includes(type) && !filled.includes(type)) bad('a value', 'none');
    else if (filled.some((key) => key !== type))
      bad(`one value, of type ${type}`, `type ${filled.join(', ')}`);
  }
}

/** Nodes that depend on themselves, and those between two such. */
function cyclicNodes(nodes: readonly NodeProto[]): Set<NodeProto> {
  const makers = new Map<string, NodeProto>();
  for (const node of nodes) for (const output of node.output) makers.set(output, node);
  const before = new Map(
    nodes.map((node) => [node, new Set(nodeInputs(node).flatMap((input) => makers.get(input) ?? []))]),
  );
  const after = new Map(nodes.map((node) => [node, new Set<NodeProto>()]));
  for (const [node, needed] of before) for (const other of needed) after.get(other)?.add(node);
  // Taking away what waits for nothing, again and again, and then what nobody waits for, leaves the cycles.
  const left = new Set(nodes);
  peel(left, before, after);
  peel(left, after, before);
  return left;
}

/** Takes nodes away that have nothing left in `needs`, until there are no more. */
function peel(
  left: Set<NodeProto>,
  needs: ReadonlyMap<NodeProto, ReadonlySet<NodeProto>>,
  neededBy: ReadonlyMap<NodeProto, ReadonlySet<NodeProto>>,
): void {
  const waiting = new Map<NodeProto, number>();
  const free: NodeProto[] = [];
  for (const node of left) {
    const count = [...(needs.get(node) ?? [])].filter((other) => left.has(other)).length;
    waiting.set(node, count);
    if (count === 0) free.push(node);
  }
  for (let node = free.pop(); node !== undefined; node = free.pop()) {
    left.delete(node);
    for (const other of neededBy.get(node) ?? []) {
      const count = (waiting.get(other) ?? 0) - 1;
      waiting.set(other, count);
      if (count === 0 && left.has(other)) free.push(other);
    }
  }
}

function normalDomain(domain: string): string {
  return domain === 'ai.onnx' ? '' : domain;
}

/**
 * Compares what two graphs take and give: names, order, types and dimensions of inputs and outputs.
 *
 * @returns the differences, a sentence each; none when a loader of the one can load the other
 */
export function interfaceDifferences(original: Model, other: Model): string[] {
  return [
    ...listDifferences('input', original.graph.feeds, other.graph.feeds),
    ...listDifferences('output', original.graph.outputs, other.graph.outputs),
  ];
}

function listDifferences(kind: string, before: readonly ValueInfo[], after: readonly ValueInfo[]): string[] {
  const differences: string[] = [];
  const namesBefore = new Set(before.map(({ name }) => name));
  const byName = new Map(after.map((info) => [info.name, info]));
  for (const { name } of before) if (!byName.has(name)) differences.push(`${kind} "${name}" is missing`);
  for (const { name } of after) if (!namesBefore.has(name)) differences.push(`${kind} "${name}" is new`);
  if (differences.length === 0) {
    const moved = before.find(({ name }, index) => after[index]?.name !== name);
    if (moved !== undefined) differences.push(`${kind} "${moved.name}" stands at another place`);
  }
  for (const info of before) {
    const other = byName.get(info.name);
    if (other === undefined) continue;
    const [was, is] = [describeType(info), describeType(other)];
    if (was !== is) differences.push(`${kind} "${info.name}" was ${was} and is ${is}`);
  }
  return differences;
}

function describeType(info: ValueInfo): string {
  const type = elementType(info);
  if (type === undefined) return info.type?.value.case ?? 'without a type';
  const shape = shapeOf(info);
  return `${dataTypeName(type)} ${shape === undefined ? 'of any rank' : `[${shape.map((dim) => dim ?? '?').join(', ')}]`}`;
}

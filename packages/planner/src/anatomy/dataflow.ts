import type { Graph, Node } from '../onnx/index.js';
import { nodeInputs } from '../onnx/index.js';

/**
 * One operation of the graph as the analysis sees it. A fused `Skip…LayerNormalization` is seen as the two
 * operations that it is, a sum and a norm, so that the residual stream is a chain of sums in every export.
 */
export interface Operation {
  /** Position in topological order. */
  readonly index: number;
  readonly node: Node;
  readonly kind: 'plain' | 'skip-sum' | 'skip-norm';
  readonly op: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
}

/** Fused operators that add to the residual stream and normalise the sum, with the place of each input. */
export const SKIP_NORMS: Readonly<Record<string, { readonly beta?: number; readonly bias: number }>> = {
  SkipSimplifiedLayerNormalization: { bias: 3 },
  SkipLayerNormalization: { beta: 3, bias: 4 },
};

/** Which output of a fused skip norm is the sum. */
export const SKIP_SUM_OUTPUT = 3;

export function isSkipNorm(node: Node): boolean {
  return node.domain === 'com.microsoft' && node.opType in SKIP_NORMS;
}

/** The name of the sum that a fused skip norm computes; made up where the graph does not ask for it. */
export function skipSumName(node: Node): string {
  const asked = node.output[SKIP_SUM_OUTPUT] ?? '';
  return asked !== '' ? asked : `${node.output[0] ?? node.name}#sum`;
}

/**
 * Which operation reads what from which. What reads only the *shape* of a value does not depend on it:
 * exporters compute masks and reshapes of every layer from the shapes of whatever value is at hand.
 */
export class Dataflow {
  readonly operations: readonly Operation[];
  readonly #producer = new Map<string, Operation>();
  readonly #consumers = new Map<string, Operation[]>();

  constructor(graph: Graph) {
    const operations: Operation[] = [];
    const add = (parts: Omit<Operation, 'index'>) => operations.push({ index: operations.length, ...parts });
    const nodes = topologicalOrder(graph);
    const dequantised = dequantisedLookups(nodes);
    for (const node of nodes) {
      if (isSkipNorm(node)) {
        const { bias } = SKIP_NORMS[node.opType] as { bias: number };
        const sum = skipSumName(node);
        const terms = [node.input[0], node.input[1], node.input[bias]].filter((v): v is string => !!v);
        add({ node, kind: 'skip-sum', op: 'Add', inputs: terms, outputs: [sum] });
        const weights = node.input.slice(2, bias).filter((v) => v !== '');
        const normed = node.output.slice(0, SKIP_SUM_OUTPUT).filter((v) => v !== '');
        add({ node, kind: 'skip-norm', op: node.opType, inputs: [sum, ...weights], outputs: normed });
      } else {
        const outputs = node.output.filter((v) => v !== '');
        const inputs = nodeInputs(node).map((input) => {
          const value = dequantised.get(input);
          return value === undefined || outputs.includes(value) ? input : value;
        });
        add({ node, kind: 'plain', op: node.opType, inputs, outputs });
      }
    }
    this.operations = operations;
    for (const operation of operations) {
      for (const output of operation.outputs) this.#producer.set(output, operation);
      for (const input of this.dataInputs(operation)) {
        const list = this.#consumers.get(input);
        if (list === undefined) this.#consumers.set(input, [operation]);
        else if (list.at(-1) !== operation) list.push(operation);
      }
    }
  }

  producer(value: string): Operation | undefined {
    return this.#producer.get(value);
  }

  /** Operations whose result depends on the value's elements. */
  consumers(value: string): readonly Operation[] {
    return this.#consumers.get(value) ?? [];
  }

  /** The values whose elements an operation's result depends on. */
  dataInputs(operation: Operation): readonly string[] {
    return SHAPE_ONLY.has(operation.op) ? [] : operation.inputs;
  }

  successors(operation: Operation): Operation[] {
    return [...new Set(operation.outputs.flatMap((output) => this.consumers(output)))];
  }

  /** All operations whose result depends on one of the values. */
  reachableFrom(values: Iterable<string>): Set<Operation> {
    const reached = new Set<Operation>();
    const open = [...values].flatMap((value) => [...this.consumers(value)]);
    for (let next = open.pop(); next !== undefined; next = open.pop()) {
      if (reached.has(next)) continue;
      reached.add(next);
      open.push(...this.successors(next));
    }
    return reached;
  }

  /** All operations that a value depends on, up to (and without) those that `stop` holds back. */
  reaching(values: Iterable<string>, stop: (value: string) => boolean = () => false): Set<Operation> {
    const reached = new Set<Operation>();
    const open = [...values];
    for (let value = open.pop(); value !== undefined; value = open.pop()) {
      if (stop(value)) continue;
      const producer = this.producer(value);
      if (producer === undefined || reached.has(producer)) continue;
      reached.add(producer);
      open.push(...this.dataInputs(producer));
    }
    return reached;
  }
}

const SHAPE_ONLY = new Set(['Shape', 'Size']);

/**
 * The dequantised value by the quantised one that a look-up gives. In an 8-bit model whose first layer has no norm
 * the projections read the quantised embedding itself: they read the same state of the stream as those that read
 * it dequantised, and are seen so.
 */
function dequantisedLookups(nodes: readonly Node[]): Map<string, string> {
  const lookups = new Set<string>();
  const values = new Map<string, string>();
  for (const node of nodes) {
    const [output] = node.output;
    if (node.opType === 'Gather' && output !== undefined) lookups.add(output);
    const [quantised] = node.input;
    if (node.opType !== 'DequantizeLinear' || quantised === undefined || output === undefined) continue;
    if (lookups.has(quantised) && !values.has(quantised)) values.set(quantised, output);
  }
  return values;
}

/** The operations that every path from an operation to the sink passes, nearest first, the sink last. */
export function postDominators(
  dataflow: Dataflow,
  relevant: ReadonlySet<Operation>,
  sink: Operation,
): Map<Operation, Operation | undefined> {
  // On an acyclic graph one pass in reverse topological order is exact: an operation's immediate
  // post-dominator is the nearest common ancestor of its successors in the tree built so far.
  const immediate = new Map<Operation, Operation | undefined>([[sink, undefined]]);
  const depth = new Map<Operation, number>([[sink, 0]]);
  const common = (a: Operation, b: Operation): Operation => {
    let [left, right] = [a, b];
    while (left !== right) {
      if ((depth.get(left) as number) >= (depth.get(right) as number))
        left = immediate.get(left) as Operation;
      else right = immediate.get(right) as Operation;
    }
    return left;
  };
  const ordered = [...relevant].sort((a, b) => b.index - a.index);
  for (const operation of ordered) {
    if (operation === sink) continue;
    const successors = dataflow.successors(operation).filter((next) => immediate.has(next));
    const [first, ...others] = successors;
    if (first === undefined) continue;
    const parent = others.reduce(common, first);
    immediate.set(operation, parent);
    depth.set(operation, (depth.get(parent) as number) + 1);
  }
  return immediate;
}

/**
 * The nodes in an order in which each comes behind what it reads, otherwise as they stood.
 * Nodes on a cycle, which no valid model has, are left out.
 */
export function topologicalOrder(graph: Graph): Node[] {
  const producer = graph.producers();
  const waiting = new Map<Node, number>();
  const readers = new Map<Node, Node[]>();
  const position = new Map(graph.nodes.map((node, index) => [node, index]));
  const ready = new MinHeap();
  for (const node of graph.nodes) {
    const before = new Set(nodeInputs(node).flatMap((input) => producer.get(input) ?? []));
    waiting.set(node, before.size);
    for (const other of before) {
      const list = readers.get(other);
      if (list === undefined) readers.set(other, [node]);
      else list.push(node);
    }
    if (before.size === 0) ready.push(position.get(node) as number);
  }
  const ordered: Node[] = [];
  for (let index = ready.pop(); index !== undefined; index = ready.pop()) {
    const node = graph.nodes[index] as Node;
    ordered.push(node);
    for (const reader of readers.get(node) ?? []) {
      const left = (waiting.get(reader) as number) - 1;
      waiting.set(reader, left);
      if (left === 0) ready.push(position.get(reader) as number);
    }
  }
  return ordered;
}

/** Smallest number first. */
class MinHeap {
  readonly #items: number[] = [];

  push(value: number): void {
    const items = this.#items;
    items.push(value);
    let at = items.length - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if ((items[parent] as number) <= value) break;
      items[at] = items[parent] as number;
      at = parent;
    }
    items[at] = value;
  }

  pop(): number | undefined {
    const items = this.#items;
    const top = items[0];
    const last = items.pop();
    if (top === undefined || last === undefined || items.length === 0) return top;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= items.length) break;
      if (child + 1 < items.length && (items[child + 1] as number) < (items[child] as number)) child++;
      if ((items[child] as number) >= last) break;
      items[at] = items[child] as number;
      at = child;
    }
    items[at] = last;
    return top;
  }
}

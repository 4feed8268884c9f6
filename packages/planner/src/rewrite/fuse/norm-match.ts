import { type Graph, intAttribute, isFloatType, type Node } from '../../onnx/index.js';
import { ConstantValues } from './constant-values.js';
import { elementTypes } from './element-types.js';

/**
 * A graph as the norm passes look at it: values are seen through casts between floating-point types, which converters
 * to float16 put around most parts of a norm.
 */
export class GraphView {
  readonly producers: ReadonlyMap<string, Node>;
  readonly constants: ConstantValues;
  readonly types: ReadonlyMap<string, number>;
  readonly #readers = new Map<string, Node[]>();

  constructor(readonly graph: Graph) {
    this.producers = graph.producers();
    this.constants = new ConstantValues(graph);
    this.types = elementTypes(graph);
    for (const node of graph.nodes) {
      if (this.#isFloatCast(node)) continue;
      for (const root of new Set(node.input.map((input) => this.root(input)))) {
        const list = this.#readers.get(root);
        if (list === undefined) this.#readers.set(root, [node]);
        else list.push(node);
      }
    }
  }

  /** The value before casts. */
  root(value: string): string {
    let at = value;
    for (
      let node = this.producers.get(at);
      node !== undefined && this.#isFloatCast(node);
      node = this.producers.get(at)
    ) {
      at = node.input[0] ?? '';
    }
    return at;
  }

  #isFloatCast(node: Node): boolean {
    if (node.opType !== 'Cast') return false;
    const from = this.types.get(node.input[0] ?? '');
    return from !== undefined && isFloatType(from) && isFloatType(intAttribute(node, 'to') ?? 0);
  }

  /** What computes a value, before casts. */
  producer(value: string): Node | undefined {
    return this.producers.get(this.root(value));
  }

  /** Readers of a value or of what it is cast to, of these operators if any are given. */
  readers(value: string, ...operators: string[]): Node[] {
    const all = this.#readers.get(this.root(value)) ?? [];
    return operators.length === 0 ? all : all.filter(({ opType }) => operators.includes(opType));
  }

  /** What an operator with two operands takes beside `value`; `undefined` where it does not read it. */
  other(node: Node, value: string): string | undefined {
    const at = node.input.findIndex((input) => this.root(input) === this.root(value));
    return at === -1 ? undefined : node.input[1 - at];
  }

  reads(node: Node, place: number, value: string): boolean {
    return this.root(node.input[place] ?? '') === this.root(value);
  }

  async isNumber(value: string | undefined, number: number): Promise<boolean> {
    return value !== undefined && (await this.constants.scalar(value)) === number;
  }

  weightDims(value: string): readonly number[] | undefined {
    return this.graph.initializers.get(this.root(value))?.dims;
  }
}

/** A value `x · (mean(x²) + ε)^(-1/2)`. */
export interface Normalised {
  readonly epsilon: number;
  readonly output: string;
}

/** What was looked for and what stands there, where a pattern ends. */
export interface Mismatch {
  readonly expected: string;
  readonly found: string;
}

/** Follows a `ReduceMean` over squares to what was squared, divided by the root of the mean. */
export async function followRoot(
  view: GraphView,
  mean: Node,
  squared: string,
): Promise<Normalised | Mismatch> {
  const axes = await view.constants.axes(mean);
  if (axes?.length !== 1 || axes[0] !== -1) {
    const found = axes === undefined ? 'axes that are computed' : `axes ${axes.join(', ')}`;
    return { expected: 'a mean over the last axis, counted from the end', found };
  }
  const [averaged = ''] = mean.output;
  const [sum] = view.readers(averaged, 'Add');
  const epsilon = sum && (await view.constants.scalar(view.other(sum, averaged) ?? ''));
  if (sum === undefined || epsilon === undefined) {
    return { expected: 'a constant added to the mean', found: readersOf(view, averaged) };
  }
  const [root] = view.readers(sum.output[0] ?? '', 'Sqrt');
  const rooted = root?.output[0];
  if (rooted === undefined)
    return { expected: 'the root of the mean', found: readersOf(view, sum.output[0] ?? '') };
  for (const node of view.readers(rooted, 'Div', 'Reciprocal')) {
    const [output = ''] = node.output;
    const divides = node.opType === 'Div' && view.reads(node, 1, rooted);
    if (divides && view.reads(node, 0, squared)) return { epsilon, output };
    if (node.opType === 'Div' && !(divides && (await view.isNumber(node.input[0], 1)))) continue;
    const product = view
      .readers(output, 'Mul')
      .find(
        (mul) =>
          view.other(mul, output) !== undefined &&
          view.root(view.other(mul, output) as string) === view.root(squared),
      );
    if (product !== undefined) return { epsilon, output: product.output[0] ?? '' };
  }
  return { expected: 'what was squared, divided by the root', found: readersOf(view, rooted) };
}

/** The operators that read a value, for a refusal. */
export function readersOf(view: GraphView, value: string): string {
  const readers = view.readers(value);
  return readers.length === 0 ? 'nothing that reads it' : readers.map(({ opType }) => opType).join(', ');
}

/** What is squared, where a node is a square. */
export async function squaredOf(view: GraphView, node: Node | undefined): Promise<string | undefined> {
  const [base, second] = node?.input ?? [];
  if (base === undefined || second === undefined) return undefined;
  if (node?.opType === 'Mul' && view.root(base) === view.root(second)) return base;
  return node?.opType === 'Pow' && (await view.isNumber(second, 2)) ? base : undefined;
}

/** The product with a weight `[features]`, where one follows. */
export function weighted(
  view: GraphView,
  value: string,
): { weight: string; output: string; node: Node } | undefined {
  for (const node of view.readers(value, 'Mul')) {
    const weight = view.other(node, value) ?? '';
    if (view.weightDims(weight)?.length === 1) return { weight, output: node.output[0] ?? '', node };
  }
  return undefined;
}

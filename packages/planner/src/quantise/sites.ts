import { Dataflow, type Operation } from '../anatomy/dataflow.js';
import { Constants } from '../linear/constants.js';
import { weightProduct } from '../linear/products.js';
import {
  DataType,
  floatAttribute,
  type Graph,
  intAttribute,
  type Model,
  type Node,
  type Tensor,
} from '../onnx/index.js';

/** Where a matrix of floating-point numbers stands in a graph. */
export interface StoredMatrix {
  readonly tensor: Tensor;
  /** Whether it is stored `[outFeatures, inFeatures]`. */
  readonly transposed: boolean;
  /** That of the product, where it multiplies the matrix by a number. */
  readonly factor: number;
}

/** A product of the graph with a matrix of floating-point numbers. */
export interface ProductSite {
  /** How reports name it: the node's name, or its output's. */
  readonly name: string;
  readonly node: Node;
  readonly input: string;
  readonly output: string;
  readonly inFeatures: number;
  readonly outFeatures: number;
  readonly matrix: StoredMatrix;
  /** Bias of a `Gemm`, with what it is multiplied by. */
  readonly bias: string | undefined;
  /** Whether the logits come from it with no other product between, one in codes neither. */
  readonly head: boolean;
}

/** A table of which rows are looked up by token. */
export interface LookupSite {
  readonly name: string;
  readonly node: Node;
  readonly tensor: Tensor;
  /** Whether it is stored `[width, rows]`, as a tied head has it. */
  readonly turned: boolean;
  readonly rows: number;
  readonly width: number;
}

export interface Sites {
  /** In topological order. */
  readonly products: readonly ProductSite[];
  readonly lookups: readonly LookupSite[];
}

/** Products with fewer outputs are routers of experts and the like: small, and what depends on them depends on it all. */
export const LEAST_OUTPUTS = 32;
const FLOAT_TYPES = new Set<number>([DataType.FLOAT, DataType.FLOAT16]);

/** Finds the products with a constant matrix and the embedding tables of a graph, by dataflow alone. */
export function findSites(model: Model, tokens: string, logits: string): Sites {
  const { graph } = model;
  const dataflow = new Dataflow(graph);
  const constants = new Constants(graph);
  const producers = graph.producers();
  const products: Omit<ProductSite, 'head'>[] = [];
  const lookups: LookupSite[] = [];
  for (const { node, kind } of dataflow.operations) {
    if (kind !== 'plain') continue;
    const lookup = lookupAt(graph, producers, node, tokens);
    if (lookup !== undefined) lookups.push(lookup);
    const product = weightProduct(node, constants);
    if (product === undefined || product.reads !== 'rows' || product.quantised) continue;
    const matrix = storedMatrix(graph, producers, node);
    if (matrix === undefined || !FLOAT_TYPES.has(matrix.tensor.dataType)) continue;
    const { inFeatures, outFeatures, data } = product;
    if (outFeatures < LEAST_OUTPUTS) continue;
    const [output = ''] = node.output;
    const name = node.name !== '' ? node.name : output;
    const bias = node.opType === 'Gemm' && product.biased ? node.input[2] : undefined;
    products.push({ name, node, input: data, output, inFeatures, outFeatures, matrix, bias });
  }
  const behind = dataflow.reaching([logits]);
  const weighted = ({ node, kind }: Operation) =>
    kind === 'plain' && weightProduct(node, constants) !== undefined;
  return {
    products: products.map((site) => {
      const after = [...dataflow.reachableFrom([site.output])].filter((operation) => behind.has(operation));
      const gives = site.output === logits || after.some(({ outputs }) => outputs.includes(logits));
      return { ...site, head: gives && !after.some(weighted) };
    }),
    lookups,
  };
}

function storedMatrix(
  graph: Graph,
  producers: ReadonlyMap<string, Node>,
  node: Node,
): StoredMatrix | undefined {
  if (!['MatMul', 'FusedMatMul', 'Gemm'].includes(node.opType)) return undefined;
  // Scaled biases are as good as unheard of.
  if (node.opType === 'Gemm' && (node.input[2] ?? '') !== '' && (floatAttribute(node, 'beta') ?? 1) !== 1) {
    return undefined;
  }
  const { tensor, turned } = initializerAt(graph, producers, node.input[1]);
  if (tensor?.dims.length !== 2) return undefined;
  const transposed = ((intAttribute(node, 'transB') ?? 0) !== 0) !== turned;
  return { tensor, transposed, factor: floatAttribute(node, 'alpha') ?? 1 };
}

/** A weight, seen through a transposition. */
function initializerAt(
  graph: Graph,
  producers: ReadonlyMap<string, Node>,
  name = '',
): { tensor: Tensor | undefined; turned: boolean } {
  const maker = producers.get(name);
  const perm = maker?.attribute.find((attribute) => attribute.name === 'perm')?.ints.map(Number);
  const turned = maker?.opType === 'Transpose' && (perm === undefined || perm.join() === '1,0');
  return { tensor: graph.initializers.get(turned ? (maker.input[0] ?? '') : name), turned };
}

function lookupAt(
  graph: Graph,
  producers: ReadonlyMap<string, Node>,
  node: Node,
  tokens: string,
): LookupSite | undefined {
  if (node.opType !== 'Gather' || (intAttribute(node, 'axis') ?? 0) !== 0) return undefined;
  const { tensor, turned } = initializerAt(graph, producers, node.input[0]);
  const dims = tensor?.dims ?? [];
  const [rows, width, ...more] = turned ? dims.reverse() : dims;
  if (tensor === undefined || rows === undefined || width === undefined || more.length > 0) return undefined;
  if (!FLOAT_TYPES.has(tensor.dataType)) return undefined;
  if (!readsTokens(producers, node, tokens)) return undefined;
  return { name: node.name !== '' ? node.name : (node.output[0] ?? ''), node, tensor, turned, rows, width };
}

/** Whether the rows that a node looks up are those of the tokens, in whatever shape. */
export function readsTokens(producers: ReadonlyMap<string, Node>, node: Node, tokens: string): boolean {
  let ids = node.input[1] ?? '';
  for (let maker = producers.get(ids); maker !== undefined; maker = producers.get(ids)) {
    if (!['Cast', 'Identity', 'Reshape', 'Unsqueeze', 'Flatten'].includes(maker.opType)) return false;
    ids = maker.input[0] ?? '';
  }
  return ids === tokens;
}

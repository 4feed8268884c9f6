import { Dataflow } from '../../anatomy/dataflow.js';
import { Constants } from '../../linear/constants.js';
import { type WeightProduct, weightProduct } from '../../linear/products.js';
import { intAttribute, isFloatType, type Model, type Node } from '../../onnx/index.js';
import { LEAST_OUTPUTS, readsTokens } from '../sites.js';
import type { UnquantisedMatrix } from '../types.js';
import { CARRIERS, type ResidualSum } from './sums.js';

/** A node that reads a matrix or a table of the graph, and why it stays as it is in case it does. */
export interface ConstantReader extends UnquantisedMatrix {
  readonly node: Node;
}

/**
 * All products with a constant matrix, and all lookups by token or of what is added to the stream, in the order of the
 * graph: those of them that get no codes are what is left.
 */
export function constantReaders(
  model: Model,
  sums: readonly ResidualSum[],
  tokens: string,
): ConstantReader[] {
  const { graph } = model;
  const constants = new Constants(graph);
  const producers = graph.producers();
  const added = new Set<string>();
  for (const { terms } of sums) {
    for (const term of terms) {
      added.add(term);
      let maker = producers.get(term);
      while (maker !== undefined && CARRIERS.has(maker.opType)) {
        const [value = ''] = maker.input;
        added.add(value);
        maker = producers.get(value);
      }
    }
  }
  const found: ConstantReader[] = [];
  for (const { node, kind } of new Dataflow(graph).operations) {
    if (kind !== 'plain') continue;
    const name = node.name || (node.output[0] ?? '');
    const product = weightProduct(node, constants);
    if (product !== undefined) found.push({ node, name, reason: productReason(product) });
    else if (isLookup(node, constants)) {
      const byToken = readsTokens(producers, node, tokens);
      if (!byToken && !node.output.some((output) => added.has(output))) continue;
      found.push({ node, name, reason: lookupReason(node, constants, byToken) });
    }
  }
  return found;
}

function productReason({ quantised, reads, outFeatures }: WeightProduct): string {
  if (quantised || reads === 'codes') return 'its matrix is stored in codes that could not be read';
  if (outFeatures < LEAST_OUTPUTS) return `it has ${outFeatures} outputs only, which decide about others`;
  return 'its matrix is no stored one in floating point, or its bias is scaled';
}

function isLookup(node: Node, constants: Constants): boolean {
  const [table = ''] = node.input;
  if (!constants.has(table)) return false;
  if (node.opType === 'GatherBlockQuantized') return true;
  if (node.opType !== 'Gather' || (intAttribute(node, 'axis') ?? 0) !== 0) return false;
  return constants.info(table)?.dims.length === 2;
}

function lookupReason(node: Node, constants: Constants, byToken: boolean): string {
  const info = constants.info(node.input[0] ?? '');
  const coded = node.opType !== 'Gather' || info?.quantised === true || !isFloatType(info?.dataType ?? 0);
  if (coded) return 'its table is stored in codes of another form';
  return byToken ? 'its rows are not added to the stream as they are' : 'its rows are not chosen by token';
}

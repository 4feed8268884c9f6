import type { Model, Node } from '../onnx/index.js';
import { GraphEdit } from '../rewrite/graph-edit.js';
import type { Names } from '../rewrite/names.js';
import { dropUnreadWeights, readValues } from '../rewrite/unread-weights.js';
import type { QuantisedBlocks } from './blocks.js';
import { addBlocks, blockProduct } from './emit.js';
import type { ProductSite } from './sites.js';

/** Puts blocks in the place of a site's matrix, or of the blocks that are there already. */
export function putProduct(
  model: Model,
  names: Names,
  site: ProductSite,
  blocks: QuantisedBlocks,
  accuracyLevel: number,
): void {
  const stored = addBlocks(model, names, labelOf(site.name), blocks);
  replaceNode(model, site.node, blockProduct(model, names, site, blocks, stored, accuracyLevel));
}

/** @param node of the source: what stands in its place now goes, with the weights that only it has read */
export function replaceNode(model: Model, node: Node, nodes: readonly Node[]): void {
  const readBefore = readValues(model);
  const edit = new GraphEdit(model.graph);
  const [output] = node.output;
  edit.replace(model.graph.nodes.find((one) => one.output[0] === output) as Node, nodes);
  edit.apply();
  dropUnreadWeights(model, readBefore);
}

/** `/model/layers.0/mlp/down_proj/MatMul` → `model.layers.0.mlp.down_proj.MatMul` */
export function labelOf(name: string): string {
  return name.replace(/^\//, '').replaceAll('/', '.');
}

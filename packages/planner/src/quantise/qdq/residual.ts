import { intAttribute, type Model, type Node } from '../../onnx/index.js';
import { floatValues, turned } from '../matrix-values.js';
import type { LookupSite } from '../sites.js';
import { type CodeBits, toCodes } from './codes.js';
import type { QdqGraph, StoredStep } from './graph.js';
import { type Stretch, stretchAt } from './stretches.js';
import type { ResidualSum } from './sums.js';

/**
 * Makes every addition one of integers: what it reads and what it gives go through codes of its stretch's step. A value
 * that comes from another stretch goes through both steps, one after the other; a table that is looked up for the stream
 * holds codes itself.
 *
 * @returns the lookups of those tables
 */
export async function quantiseSums(
  qdq: QdqGraph,
  sums: readonly ResidualSum[],
  stretches: readonly Stretch[],
  bits: CodeBits,
  lookups: readonly LookupSite[],
): Promise<ReadonlySet<Node>> {
  const { model } = qdq;
  const steps = new Map(
    stretches.map((stretch, i) => [stretch, qdq.addStep(`cqil.qdq.residual.${i}`, stretch.step, bits)]),
  );
  const stepAt = (place: number) => steps.get(stretchAt(stretches, place)) as StoredStep;
  const tables = lookedUp(model, lookups);
  const makers = model.graph.producers();
  const stored = new Set<Node>();
  const homes = new Map<string, StoredStep>();
  for (const { output, place } of sums) homes.set(output, stepAt(place));
  for (const { terms, place } of sums) {
    for (const term of terms) if (!homes.has(term) && makers.has(term)) homes.set(term, stepAt(place));
  }
  for (const [value, step] of homes) {
    const maker = makers.get(value) as Node;
    const site = tables.get(value);
    if (site === undefined) qdq.through(value, maker, step);
    else {
      await storeTable(qdq, site, value, maker, step);
      stored.add(site.node);
      for (const [name, other] of tables) if (other === site) tables.delete(name);
    }
  }
  const again = new Map<string, string>();
  for (const { node, terms, place } of sums) {
    const step = stepAt(place);
    for (const term of terms) {
      if (homes.get(term) === step) continue;
      const key = `${step.scale}\0${term}`;
      const value = again.get(key) ?? qdq.pair(term, step);
      again.set(key, value);
      node.input = node.input.map((input) => (input === term ? value : input));
    }
  }
  return stored;
}

/** Tables by what they give, seen through a cast to the type that it has. */
function lookedUp({ graph }: Model, lookups: readonly LookupSite[]): Map<string, LookupSite> {
  const tables = new Map(lookups.map((site) => [site.node.output[0] as string, site]));
  for (const node of graph.nodes) {
    const site = tables.get(node.input[0] ?? '');
    if (site === undefined || node.opType !== 'Cast') continue;
    if (intAttribute(node, 'to') === site.tensor.dataType) tables.set(node.output[0] as string, site);
  }
  return tables;
}

/** Looking up codes gives what looking up numbers and rounding them does. */
async function storeTable(
  qdq: QdqGraph,
  site: LookupSite,
  value: string,
  maker: Node,
  step: StoredStep,
): Promise<void> {
  const { tensor, rows, width, node } = site;
  const values = await floatValues(tensor);
  const table = site.turned ? turned(values, width, rows) : values;
  const codes = qdq.lookup(node, toCodes(table, step.step, step.bits), [rows, width], step);
  if (maker === node) return;
  // The cast goes: what read it reads the codes.
  qdq.dequantised(codes, step, value);
  qdq.model.graph.nodes = qdq.model.graph.nodes.filter((one) => one !== maker);
}

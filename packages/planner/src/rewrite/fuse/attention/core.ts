import { branchOperations } from '../../../anatomy/branch.js';
import type { Operation } from '../../../anatomy/dataflow.js';
import type { LayerAnatomy } from '../../../anatomy/index.js';
import { weightProduct } from '../../../linear/products.js';
import { describeNode, intAttribute, type Model, type Node, shapeOf } from '../../../onnx/index.js';
import { type CacheStep, type GraphFacts, ran, refuse, tolerance, usualSituation } from './facts.js';
import { type MaskRule, readMask } from './mask.js';
import type { Numbers, Situation } from './probe.js';
import { agree, attention, type Heads, isToken, randomNumbers, scores, toHeads } from './reference.js';

/** Attention of one layer as found in plain operators. */
export interface AttentionCore extends Heads {
  readonly layer: LayerAnatomy;
  readonly softmax: Node;
  readonly key: CacheStep;
  readonly value: CacheStep;
  /** What the scores are computed from, `[B, H, S, D]`: rotated, not scaled. */
  readonly query: string;
  readonly scale: number;
  readonly rule: MaskRule;
  /** What attention gives, as `[B, S, H · D]` or, where nothing brings it into that shape, as `[B, H, S, D]`. */
  readonly exit: { readonly value: string; readonly node: Node; readonly layout: 'rows' | 'heads' };
  /** The stream's last axis. */
  readonly hidden: number;
}

/**
 * Finds a layer's attention: a softmax between two products, the first with keys and the second with values from the
 * cache. What the way from queries, keys and values to the result computes is then found by running it on random
 * numbers and holding it to `Σ softmax(scale · q · k + mask) v`, so that any way of writing it is understood, and none
 * that computes anything else is mistaken for it.
 *
 * @throws Refused
 */
export async function findCore(facts: GraphFacts, layer: LayerAnatomy): Promise<AttentionCore> {
  const { dataflow } = facts;
  const branch = layer.attention;
  const described = branch === undefined ? `layer ${layer.index}` : describeNode(branch.add.node);
  if (branch === undefined) throw refuse(described, 'a layer with attention', 'none');
  const steps = cacheSteps(facts, layer);
  const operations = branchOperations(dataflow, branch.add);
  const { softmax, key, value } = findSoftmax(facts, layer, operations, steps);
  const node = describeNode(softmax.node);
  const fromKey = dataflow.reachableFrom([key.joined]);
  const product = scoreProduct(facts, softmax, fromKey);
  const query = queryOf(facts, layer, product, fromKey);
  const weighted = valueProduct(facts, softmax, value);
  const sizes = headSizes(facts, layer, key, value, weighted);
  const usual = usualSituation(facts);
  const { hidden } = sizes;
  const batch = usual.padding.length;
  const total = usual.past + usual.seq;
  const given = {
    [query]: randomNumbers([batch, sizes.heads, usual.seq, sizes.headSize], 1),
    [key.joined]: randomNumbers([batch, sizes.kvHeads, total, sizes.headSize], 2),
    [value.joined]: randomNumbers([batch, sizes.kvHeads, total, sizes.headSize], 3),
  };
  const [scored = ''] = product.outputs;
  const exits = exitValues(facts, weighted);
  const found = await ran(node, () =>
    facts.probe.with(
      layer.input,
      Object.keys(given),
      [...new Set([scored, ...exits.map((exit) => exit.value)])],
      { hidden },
      (run) => run(usual, given),
    ),
  );
  const products = scores(usual, sizes, given[query] as Numbers, given[key.joined] as Numbers);
  const limit = tolerance(facts, query);
  const factor = commonFactor(products, found[scored]?.data ?? new Float32Array(), limit);
  if (factor === undefined) {
    throw refuse(
      describeNode(product.node),
      'products of queries with the keys of their group',
      'other numbers',
    );
  }
  const mask = await readMask(facts, {
    layer,
    softmax,
    scored,
    key,
    value,
    sizes,
    scoredDims: found[scored]?.dims ?? [],
  });
  const scale = factor * mask.factor;
  const rows = attention(usual, sizes, products, given[value.joined] as Numbers, { ...mask.rule, scale });
  const exit = chooseExit(exits, found, rows, usual, sizes, limit);
  if (exit === undefined) throw refuse(node, 'what softmax(scale · q · k + mask) · v gives', 'other numbers');
  return { ...sizes, layer, softmax: softmax.node, key, value, query, scale, rule: mask.rule, exit };
}

function cacheSteps(facts: GraphFacts, { index, cache }: LayerAnatomy): CacheStep[] {
  if (cache.outputs.length !== 2) {
    throw refuse(`layer ${index}`, 'a cache of keys and one of values', `${cache.outputs.length} caches`);
  }
  return cache.outputs.map((present) => {
    const { dataflow } = facts;
    const last = dataflow.producer(present);
    const operation = last?.op === 'Cast' ? dataflow.producer(last.inputs[0] ?? '') : last;
    const node = operation?.node;
    if (node === undefined) throw refuse(`output "${present}"`, 'a node that makes it', 'none');
    if (node.domain === 'com.microsoft')
      throw refuse(describeNode(node), 'attention in plain operators', 'a fused operator');
    const [past = '', added = ''] = node.input;
    const before = dataflow.producer(past);
    const input = before?.op === 'Cast' ? (before.inputs[0] ?? '') : past;
    const axis = intAttribute(node, 'axis');
    const joined = node.opType === 'Concat' && node.input.length === 2 && (axis === 2 || axis === -2);
    if (joined && cache.inputs.includes(input))
      return { input, past, added, joined: node.output[0] as string, node };
    throw refuse(describeNode(node), 'a Concat of a cache input and what is new, along axis 2', node.opType);
  });
}

function findSoftmax(
  { dataflow }: GraphFacts,
  layer: LayerAnatomy,
  operations: ReadonlySet<Operation>,
  steps: readonly CacheStep[],
): { softmax: Operation; key: CacheStep; value: CacheStep } {
  const found = steps.flatMap((key) => {
    const reached = dataflow.reachableFrom([key.joined]);
    return [...operations]
      .filter((operation) => operation.op === 'Softmax' && reached.has(operation))
      .map((softmax) => ({ softmax, key }));
  });
  const [only] = found;
  if (only === undefined || found.length > 1) {
    throw refuse(`layer ${layer.index}`, 'one Softmax that depends on the cached keys', `${found.length}`);
  }
  return { ...only, value: steps.find((step) => step !== only.key) as CacheStep };
}

const PRODUCTS = new Set(['MatMul', 'FusedMatMul', 'Einsum']);

function scoreProduct(
  { dataflow }: GraphFacts,
  softmax: Operation,
  fromKey: ReadonlySet<Operation>,
): Operation {
  let at = softmax;
  for (;;) {
    const makers = at.inputs
      .map((input) => dataflow.producer(input))
      .filter((maker) => maker !== undefined && fromKey.has(maker));
    const [maker] = makers;
    if (maker === undefined || makers.length > 1) {
      throw refuse(describeNode(at.node), 'one operand that depends on the keys', `${makers.length}`);
    }
    if (PRODUCTS.has(maker.op)) return maker;
    at = maker;
  }
}

/** Operators between the queries and their product with the keys that only scale or fold them. */
const SCALING = new Set(['Mul', 'Div', 'Reshape', 'Cast', 'Identity']);

function queryOf(
  { dataflow }: GraphFacts,
  layer: LayerAnatomy,
  product: Operation,
  fromKey: ReadonlySet<Operation>,
): string {
  const fromStream = dataflow.reachableFrom([layer.input]);
  const isMoving = (value: string) => {
    const maker = dataflow.producer(value);
    return maker !== undefined && fromStream.has(maker);
  };
  const fromKeys = (value: string) => {
    const maker = dataflow.producer(value);
    return maker !== undefined && fromKey.has(maker);
  };
  let [value, ...others] = product.inputs.filter((input) => !fromKeys(input) && isMoving(input));
  if (value === undefined || others.length > 0) {
    throw refuse(describeNode(product.node), 'a product of queries with keys', 'other operands');
  }
  for (;;) {
    const maker = dataflow.producer(value);
    if (maker === undefined || !SCALING.has(maker.op)) return value;
    const data: string[] = maker.op === 'Reshape' ? maker.inputs.slice(0, 1) : maker.inputs.filter(isMoving);
    if (data.length !== 1) return value;
    [value = ''] = data;
  }
}

function valueProduct({ dataflow }: GraphFacts, softmax: Operation, value: CacheStep): Operation {
  const behind = dataflow.reachableFrom(softmax.outputs);
  const withValues = dataflow.reachableFrom([value.joined]);
  const [first] = [...behind]
    .filter((operation) => PRODUCTS.has(operation.op) && withValues.has(operation))
    .sort((a, b) => a.index - b.index);
  if (first !== undefined) return first;
  throw refuse(describeNode(softmax.node), 'a product with the cached values behind it', 'none');
}

function headSizes(
  facts: GraphFacts,
  layer: LayerAnatomy,
  key: CacheStep,
  value: CacheStep,
  weighted: Operation,
): Heads & { readonly hidden: number } {
  const shapes = [key, value].map(({ input }) =>
    shapeOf(facts.model.graph.inputs.find(({ name }) => name === input) as Model['graph']['inputs'][number]),
  );
  const [[, kvHeads, , headSize] = [], other = []] = shapes;
  const fixed =
    typeof kvHeads === 'number' &&
    typeof headSize === 'number' &&
    other[1] === kvHeads &&
    other[3] === headSize;
  if (!fixed) {
    throw refuse(
      describeNode(key.node),
      'caches [batch, heads, sequence, head size] with fixed heads and size',
      shapes.map((shape) => `[${shape?.join(', ')}]`).join(' and '),
    );
  }
  const inner = firstProduct(facts, weighted.outputs)?.inFeatures;
  const hidden = firstProduct(facts, [layer.input])?.inFeatures;
  if (
    inner === undefined ||
    hidden === undefined ||
    inner % headSize !== 0 ||
    (inner / headSize) % kvHeads !== 0
  ) {
    throw refuse(
      describeNode(weighted.node),
      `a product with a weight of a multiple of ${kvHeads * headSize} inputs behind attention`,
      `${inner}`,
    );
  }
  const heads = inner / headSize;
  if (headSize % 8 !== 0)
    throw refuse(describeNode(weighted.node), 'a head size that is a multiple of 8', `${headSize}`);
  return { heads, kvHeads, headSize, hidden };
}

/** The first product with a weight that values go into, in the order of the graph. */
export function firstProduct({ dataflow, constants }: GraphFacts, values: readonly string[]) {
  const reached = [...dataflow.reachableFrom(values)].sort((a, b) => a.index - b.index);
  for (const { node, kind } of reached) {
    const product = kind === 'plain' ? weightProduct(node, constants) : undefined;
    if (product !== undefined) return product;
  }
  return undefined;
}

const CARRIERS = new Set(['Cast', 'Identity', 'Reshape', 'Transpose']);

/** The product with the values and what only brings it into another shape. */
function exitValues({ dataflow }: GraphFacts, weighted: Operation): { value: string; node: Node }[] {
  const list: { value: string; node: Node }[] = [];
  for (let at: Operation | undefined = weighted; at !== undefined; ) {
    const [value = ''] = at.outputs;
    list.push({ value, node: at.node });
    const readers = dataflow.consumers(value);
    at = readers.length === 1 && CARRIERS.has(readers[0]?.op ?? '') ? readers[0] : undefined;
  }
  return list;
}

function chooseExit(
  exits: readonly { value: string; node: Node }[],
  found: Readonly<Record<string, Numbers>>,
  rows: Float64Array,
  situation: Situation,
  { heads, headSize }: Heads,
  limit: number,
): AttentionCore['exit'] | undefined {
  const { seq, padding } = situation;
  const batch = padding.length;
  const width = heads * headSize;
  const ofToken = (i: number) =>
    isToken(situation, Math.floor(i / (seq * width)), Math.floor(i / width) % seq);
  const asHeads = toHeads(rows, batch, seq, heads, headSize);
  const ofHead = (i: number) =>
    isToken(situation, Math.floor(i / (heads * seq * headSize)), Math.floor(i / headSize) % seq);
  const isShape = (dims: readonly number[] | undefined, ...shape: number[]) => dims?.join() === shape.join();
  for (const exit of [...exits].reverse()) {
    const numbers = found[exit.value];
    if (isShape(numbers?.dims, batch, seq, width) && agree(numbers?.data ?? [], rows, limit, ofToken)) {
      return { ...exit, layout: 'rows' };
    }
  }
  for (const exit of [...exits].reverse()) {
    const numbers = found[exit.value];
    if (
      isShape(numbers?.dims, batch, heads, seq, headSize) &&
      agree(numbers?.data ?? [], asHeads, limit, ofHead)
    ) {
      return { ...exit, layout: 'heads' };
    }
  }
  return undefined;
}

/** `c` where all of `found` is `c · expected`, up to rounding. */
function commonFactor(expected: Float64Array, found: Float32Array, limit: number): number | undefined {
  let dot = 0;
  let squares = 0;
  for (const [i, value] of expected.entries()) {
    dot += value * (found[i] ?? Number.NaN);
    squares += value * value;
  }
  const factor = dot / squares;
  if (!(factor > 0)) return undefined;
  const size = expected.reduce((largest, value) => Math.max(largest, Math.abs(value)), 0) * factor;
  const fits = found.every(
    (value, i) => Math.abs(value - factor * (expected[i] as number)) <= limit * Math.max(size, limit),
  );
  return fits && found.length === expected.length ? roundFactor(factor) : undefined;
}

/** The measured factor without its rounding where it is a number that people write: 1/√n, or n/64. */
export function roundFactor(measured: number): number {
  const square = 1 / measured ** 2;
  const root = Math.round(square);
  if (root > 0 && Math.abs(square / root - 1) < 1e-5) return 1 / Math.sqrt(root);
  const parts = Math.round(measured * 64);
  return parts > 0 && Math.abs((measured * 64) / parts - 1) < 1e-5 ? parts / 64 : measured;
}

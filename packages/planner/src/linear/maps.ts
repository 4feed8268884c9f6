import { branchOperations } from '../anatomy/branch.js';
import { Dataflow, type Operation } from '../anatomy/dataflow.js';
import type { Anatomy, BranchAnatomy, LayerAnatomy } from '../anatomy/index.js';
import { describeNode, type Model, type Node } from '../onnx/index.js';
import { type AffinePart, AffineReader, isAffine } from './affine.js';
import { Constants } from './constants.js';
import { hasActivation } from './products.js';
import type { LinearMap, LinearMaps, MapRefusal, MapRole } from './types.js';

/**
 * Finds the affine maps that the layers' attention and FFN branches begin and end with, by dataflow alone.
 *
 * A branch ends with the map from the value nearest to what it adds to the stream such that all that comes from the
 * stream passes this value and a product with a weight lies behind it. It begins with the products that read it before
 * any other product has.
 *
 * @param anatomy of this model
 */
export function linearMaps(model: Model, anatomy: Anatomy): LinearMaps {
  const finder = new MapFinder(model);
  const found = anatomy.layers.flatMap((layer) => finder.layer(layer));
  return {
    maps: found.filter((entry): entry is LinearMap => 'output' in entry),
    refusals: found.filter((entry): entry is MapRefusal => 'refused' in entry),
  };
}

const ROLES: readonly MapRole[] = ['qkv', 'o', 'gate-up', 'down'];
const EXPERTS = new Set(['MoE', 'QMoE', 'TopK']);

type Found = LinearMap | MapRefusal;

class MapFinder {
  readonly #dataflow: Dataflow;
  readonly #reader: AffineReader;
  readonly #outputs: ReadonlySet<string>;

  constructor(model: Model) {
    this.#dataflow = new Dataflow(model.graph);
    this.#reader = new AffineReader(this.#dataflow, new Constants(model.graph));
    this.#outputs = new Set(model.graph.outputs.map(({ name }) => name));
  }

  layer(layer: LayerAnatomy): Found[] {
    const found = [layer.attention, layer.ffn].flatMap((branch) => {
      return branch === undefined ? [] : new BranchMaps(this, layer, branch).find();
    });
    const missing = ROLES.filter((role) => !found.some((entry) => entry.role === role)).map((role) => {
      const part = role === 'qkv' || role === 'o' ? 'attention' : 'FFN';
      const refused =
        branchOf(layer, role) === undefined
          ? `the layer has no ${part}`
          : `no product was found in the ${part}`;
      return { layer: layer.index, role, refused };
    });
    return [...found, ...missing].sort((a, b) => ROLES.indexOf(a.role) - ROLES.indexOf(b.role));
  }

  get dataflow(): Dataflow {
    return this.#dataflow;
  }

  get reader(): AffineReader {
    return this.#reader;
  }

  isOutput(value: string): boolean {
    return this.#outputs.has(value);
  }
}

function branchOf(layer: LayerAnatomy, role: MapRole): BranchAnatomy | undefined {
  if (role === 'qkv' || role === 'o' || layer.kind === 'parallel') return layer.attention;
  return layer.ffn;
}

class BranchMaps {
  readonly #operations: ReadonlySet<Operation>;
  readonly #entry: string;

  constructor(
    readonly finder: MapFinder,
    readonly layer: LayerAnatomy,
    readonly branch: BranchAnatomy,
  ) {
    this.#operations = branchOperations(finder.dataflow, branch.add);
    this.#entry = branch.add.skip;
  }

  find(): Found[] {
    const computed = this.branch.add.contributions.filter((value) => this.#isInside(value));
    const exits = computed.flatMap((value) => this.#exits(value));
    return [...this.#entries(exits.map(({ value }) => value)), ...exits.map(({ found }) => found)];
  }

  #isInside(value: string): boolean {
    const producer = this.finder.dataflow.producer(value);
    return producer !== undefined && this.#operations.has(producer);
  }

  /** The operations of the branch that a value depends on. */
  #reaching(value: string, stop = ''): Operation[] {
    const before = this.finder.dataflow.reaching([value], (at) => at === stop || at === this.#entry);
    return [...before].filter((operation) => this.#operations.has(operation));
  }

  /** `attention` or `FFN`: a parallel block has both in one branch, and only attention reads the cache. */
  #isAttention(value: string): boolean {
    if (this.layer.kind !== 'parallel') return this.branch === this.layer.attention;
    const states = new Set(this.layer.cache.inputs);
    const before = this.finder.dataflow.reaching([value], (at) => at === this.#entry);
    return [...before].some((operation) =>
      this.finder.dataflow.dataInputs(operation).some((v) => states.has(v)),
    );
  }

  #hasExperts(value: string): boolean {
    return this.#reaching(value).some(({ op }) => EXPERTS.has(op));
  }

  /** The maps at the end of the branch: one, or one for each term where the branch is a sum of several. */
  #exits(value: string): { value: string; found: Found }[] {
    const attempt = this.#exit(value);
    if ('refused' in attempt) {
      const producer = this.finder.dataflow.producer(value);
      const terms = producer?.op === 'Add' || producer?.op === 'Sum' ? producer.inputs : [];
      const inside = terms.filter((term) => this.#isInside(term));
      if (inside.length > 1) return inside.flatMap((term) => this.#exits(term));
    }
    return [{ value, found: attempt }];
  }

  #exit(value: string): Found {
    const role = this.#isAttention(value) ? 'o' : 'down';
    const part = this.#exitPart(value);
    if (typeof part !== 'string') return this.#map(role, part);
    return { layer: this.layer.index, role, refused: this.#exitReason(value, role, part) };
  }

  #exitReason(value: string, role: MapRole, otherwise: string): string {
    const part = role === 'o' ? 'attention' : 'FFN';
    if (this.#hasExperts(value)) return `the ${part} is a mixture of experts, which ends in no one matrix`;
    if (this.branch.postNorm !== 'none') return `a norm stands behind the ${part}`;
    return otherwise;
  }

  /** The nearest affine part before a value, or why there is none. */
  #exitPart(value: string): AffinePart | string {
    const { reader } = this.finder;
    const stop = new Set([this.#entry]);
    let products: number | undefined;
    let at: Node | undefined;
    for (const candidate of this.#dominators(value)) {
      if (reader.beforeSums(candidate) !== undefined) continue;
      const between = reader.between(candidate, value, candidate === this.#entry ? undefined : stop);
      const count = between.filter((operation) => reader.product(operation) !== undefined).length;
      if (count === 0) continue;
      // Quantised products begin at the numbers before their codes; with another product it would be another map.
      products ??= count;
      if (count !== products) break;
      const found = reader.part(candidate, value, candidate === this.#entry ? undefined : stop);
      if (isAffine(found)) return found;
      at ??= found.at;
    }
    if (products === undefined) return 'no product with a weight was found before its sum with the stream';
    return at === undefined
      ? 'what stands before its sum with the stream could not be read as a matrix'
      : `${describeNode(at)} between its last product and the stream is not affine`;
  }

  /** Values that everything from the branch's entry to a value passes, nearest first, the entry last. */
  *#dominators(value: string): Generator<string> {
    const before = this.#reaching(value).sort((a, b) => b.index - a.index);
    for (const { outputs } of before) {
      for (const candidate of outputs) {
        if (candidate === value) continue;
        const around = this.#reaching(value, candidate);
        const readsEntry = (operation: Operation) =>
          this.finder.dataflow.dataInputs(operation).includes(this.#entry);
        if (!around.some(readsEntry)) yield candidate;
      }
    }
    yield this.#entry;
  }

  /** The maps at the beginning: products that no other product of the branch comes before. */
  #entries(exits: readonly string[]): Found[] {
    const { reader, dataflow } = this.finder;
    const behind = new Set<Operation>();
    const found: Found[] = [];
    for (const operation of [...this.#operations].sort((a, b) => a.index - b.index)) {
      const late = dataflow.dataInputs(operation).some((input) => {
        const producer = dataflow.producer(input);
        return producer !== undefined && behind.has(producer);
      });
      const product = reader.product(operation);
      if (late || product !== undefined || EXPERTS.has(operation.op)) behind.add(operation);
      if (late) continue;
      if (product !== undefined) found.push(this.#entryMap(operation, exits));
    }
    return distinct(found);
  }

  #entryMap(operation: Operation, exits: readonly string[]): Found {
    const role = this.#entryRole(operation, exits);
    const refuse = (refused: string): Found => ({ layer: this.layer.index, role: role ?? 'qkv', refused });
    if (role === undefined) return refuse('one product serves attention and FFN');
    if (role === 'gate-up' && [...this.#operations].some(({ op }) => EXPERTS.has(op))) {
      return refuse('the FFN is a mixture of experts, which begins with no one matrix');
    }
    if (hasActivation(operation.node))
      return refuse(`${describeNode(operation.node)} computes the activation, too`);
    const root = this.#root(operation);
    const part = root === undefined ? undefined : this.#extend(root, operation);
    if (part === undefined) return refuse(`${describeNode(operation.node)} could not be read as a matrix`);
    return this.#map(role, part);
  }

  #entryRole(operation: Operation, exits: readonly string[]): MapRole | undefined {
    if (this.layer.kind !== 'parallel') return this.branch === this.layer.attention ? 'qkv' : 'gate-up';
    const serving = exits.filter((value) => this.#reaching(value).includes(operation));
    const roles = new Set(serving.map((value) => (this.#isAttention(value) ? 'qkv' : 'gate-up')));
    const [role] = roles;
    return roles.size === 1 ? (role as MapRole) : undefined;
  }

  /** The numbers that a product is a function of: before their codes, before the sums of their blocks. */
  #root(operation: Operation): string | undefined {
    const { reader, dataflow } = this.finder;
    const product = reader.product(operation);
    if (product === undefined) return undefined;
    const source = dataflow.producer(product.data);
    if (product.reads === 'codes') {
      const quantises = source?.op === 'DynamicQuantizeLinear' || source?.op === 'QuantizeLinear';
      return quantises ? source.node.input[0] : undefined;
    }
    return reader.beforeSums(product.data) ?? product.data;
  }

  /** How far the map goes on from a product: to the sum with the rest of it and with its bias. */
  #extend(root: string, operation: Operation): AffinePart | undefined {
    const { reader, dataflow } = this.finder;
    const stop = root === this.#entry ? undefined : new Set([this.#entry]);
    let [value = ''] = operation.outputs;
    let reached: AffinePart | undefined;
    for (;;) {
      const readers = dataflow.consumers(value);
      const found = reader.part(root, value, stop);
      const maker = dataflow.producer(value)?.op ?? '';
      // Casts count only where a sum follows; multipliers belong to what is done with the map.
      if (isAffine(found) && (reached === undefined || SUMS.has(maker))) reached = found;
      const [next] = readers;
      if (next === undefined || readers.length > 1 || this.finder.isOutput(value)) return reached;
      const goesOn = SUMS.has(next.op) || next.op === 'Cast' || next.op === 'Identity';
      if (reached === undefined ? !UNFINISHED.has(next.op) && !goesOn : !goesOn) return reached;
      if (reached !== undefined && !isAffine(found)) return reached;
      value = next.outputs[0] ?? '';
      if (!this.#operations.has(next) || value === '') return reached;
    }
  }

  #map(role: MapRole, part: AffinePart): LinearMap {
    const { input, output, inFeatures, outFeatures, hasBias, nodes } = part;
    return { layer: this.layer.index, role, input, output, inFeatures, outFeatures, hasBias, nodes };
  }
}

const SUMS = new Set(['Add', 'Sub', 'Sum']);
/** What follows sums of products of codes before they are numbers. */
const UNFINISHED = new Set(['Mul', 'DequantizeLinear']);

/** Two products may be parts of one map; a reason is given once. */
function distinct(found: readonly Found[]): Found[] {
  const seen = new Set<string>();
  return found.filter((entry) => {
    const key = 'output' in entry ? entry.output : `${entry.role}: ${entry.refused}`;
    if (seen.has(key)) return false;
    seen.add(key);
    return true;
  });
}

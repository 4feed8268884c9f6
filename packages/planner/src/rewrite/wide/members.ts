import type { SessionOptions } from '@cqil/runtime-gpu';
import { Dataflow, isSkipNorm, skipSumName } from '../../anatomy/dataflow.js';
import type { Anatomy, BranchAnatomy, LayerAnatomy } from '../../anatomy/index.js';
import { type LinearMap, type LinearMaps, linearMaps, type MapRole } from '../../linear/index.js';
import { MapLocator } from '../../linear/locate.js';
import { describeNode, floatAttribute, intAttribute, type Model, type Node } from '../../onnx/index.js';
import { ConstantReader } from './constant-reader.js';
import { type EntryNorm, entryNorm } from './entry-norm.js';
import { type FreeInputs, isDifference, Sameness } from './sameness.js';

/** Attention or FFN of a member, taken apart at its matrices. */
export interface MemberBranch {
  readonly layer: LayerAnatomy;
  readonly branch: BranchAnatomy;
  readonly norm: EntryNorm;
  /** q, k and v, or gate and up; one where they are packed. All read `norm.output`. */
  readonly entries: readonly LinearMap[];
  /** o or down. */
  readonly exit: LinearMap;
  /** Constants `[hidden]` that are added to the stream besides. */
  readonly biases: readonly string[];
  /** What lies between the first matrices and the last, in order. */
  readonly core: readonly Node[];
}

export interface Member {
  readonly index: number;
  readonly attention: MemberBranch;
  readonly ffn: MemberBranch;
}

/** Members of a group that one layer can stand for, and in what their inner computations may differ: weights alone. */
export interface Mergeable {
  readonly members: readonly Member[];
  /** For the second member and all that follow: what the constants of the first one's attention are in theirs. */
  readonly attention: readonly FreeInputs[];
  readonly ffn: readonly FreeInputs[];
}

export interface PackableAttention {
  readonly members: readonly MemberBranch[];
  /** As in `Mergeable`; `undefined` where what lies between the first matrices and the last differs in more than weights. */
  readonly free: readonly FreeInputs[] | undefined;
}

/** What merges in a group whose FFNs may read different inputs. */
export interface Packable {
  /** Norm, q, k and v of all members, and the heads where they are alike. */
  readonly attention: PackableAttention | NotMergeable;
  /** The last matrices of all members. */
  readonly ffn: readonly MemberBranch[] | NotMergeable;
}

export interface NotMergeable {
  /** Why, in words, without a full stop. */
  readonly reason: string;
}

/** What the search for merging knows of one graph. */
export class WideReader {
  readonly maps: LinearMaps;
  readonly dataflow: Dataflow;
  readonly producers: ReadonlyMap<string, Node>;
  readonly constants: ConstantReader;
  readonly locator: MapLocator;
  readonly #sameness: Sameness;

  /**
   * @param model is going to be changed
   * @param anatomy of it
   * @param source holds the same values, and is not
   */
  constructor(
    readonly model: Model,
    readonly anatomy: Anatomy,
    readonly source: Model,
    readonly session: SessionOptions = {},
  ) {
    this.maps = linearMaps(model, anatomy);
    this.dataflow = new Dataflow(model.graph);
    this.producers = model.graph.producers();
    this.constants = new ConstantReader(source, session);
    this.locator = new MapLocator(model);
    this.#sameness = new Sameness(model.graph, this.constants);
  }

  /**
   * Reads what merges in a group of any bypass: all members' attentions read one input, and their FFNs' outputs are
   * summed. Each of the two is a reason where it does not.
   */
  async packable(layers: readonly number[]): Promise<Packable> {
    const anatomies = layers.map((index) => this.anatomy.layers[index] as LayerAnatomy);
    return { attention: await this.#packableAttention(anatomies), ffn: this.#branches(anatomies, 'ffn') };
  }

  async #packableAttention(layers: readonly LayerAnatomy[]): Promise<PackableAttention | NotMergeable> {
    const members = this.#branches(layers, 'attention');
    if ('reason' in members) return members;
    const [first, ...others] = members as [MemberBranch, ...MemberBranch[]];
    const free: FreeInputs[] = [];
    for (const other of others) {
      const differ = (why: string) => ({
        reason: `the attention of layers ${first.layer.index} and ${other.layer.index} does not begin alike: ${why}`,
      });
      if (first.entries.length !== other.entries.length)
        return differ(`${first.entries.length} matrices and ${other.entries.length}`);
      const norm = await this.#compareNorms(first, other);
      if (norm !== undefined) return differ(norm.reason);
      const core = await this.#compareCores(first, other);
      if (!('reason' in core)) free.push(core);
    }
    return { members, free: free.length === others.length ? free : undefined };
  }

  #branches(layers: readonly LayerAnatomy[], part: 'attention' | 'ffn'): MemberBranch[] | NotMergeable {
    const members: MemberBranch[] = [];
    for (const layer of layers) {
      const read = this.#part(layer, part);
      if ('reason' in read) return read;
      members.push(read);
    }
    return members;
  }

  /** Reads the layers of a group as members of one wide layer, or says why they cannot be. */
  async group(layers: readonly number[]): Promise<Mergeable | NotMergeable> {
    const members: Member[] = [];
    for (const index of layers) {
      const member = this.#member(this.anatomy.layers[index] as LayerAnatomy);
      if ('reason' in member) return member;
      members.push(member);
    }
    const [first, ...others] = members as [Member, ...Member[]];
    const [attention, ffn]: [FreeInputs[], FreeInputs[]] = [[], []];
    for (const other of others) {
      for (const [part, list] of [
        ['attention', attention],
        ['ffn', ffn],
      ] as const) {
        const found = await this.#compare(first[part], other[part]);
        if ('reason' in found) {
          const name = part === 'ffn' ? 'FFN' : part;
          return {
            reason: `the ${name} of layers ${first.index} and ${other.index} is not the same but for its weights: ${found.reason}`,
          };
        }
        list.push(found);
      }
    }
    return { members, attention, ffn };
  }

  #member(layer: LayerAnatomy): Member | NotMergeable {
    const attention = this.#part(layer, 'attention');
    if ('reason' in attention) return attention;
    const ffn = this.#part(layer, 'ffn');
    return 'reason' in ffn ? ffn : { index: layer.index, attention, ffn };
  }

  #part(layer: LayerAnatomy, part: 'attention' | 'ffn'): MemberBranch | NotMergeable {
    const { index, kind } = layer;
    if (kind === 'parallel')
      return { reason: `layer ${index} computes attention and FFN from one input, in one branch` };
    const branch = layer[part];
    if (branch === undefined)
      return { reason: `layer ${index} has ${part === 'attention' ? 'no attention' : 'no FFN'}` };
    return part === 'attention'
      ? this.#branch(layer, branch, 'qkv', 'o')
      : this.#branch(layer, branch, 'gate-up', 'down');
  }

  #branch(
    layer: LayerAnatomy,
    branch: BranchAnatomy,
    entry: MapRole,
    last: MapRole,
  ): MemberBranch | NotMergeable {
    const { index } = layer;
    const part = `${entry === 'qkv' ? 'attention' : 'FFN'} of layer ${index}`;
    if (branch.postNorm !== 'none') return { reason: `a norm stands behind the ${part}` };
    const refused = this.maps.refusals.find(
      ({ layer: of, role }) => of === index && [entry, last].includes(role),
    );
    if (refused !== undefined)
      return {
        reason: `layer ${index} has no matrix "${refused.role}" that can be read: ${refused.refused}`,
      };
    const own = this.maps.maps.filter((map) => map.layer === index);
    const entries = own.filter(({ role }) => role === entry);
    const exits = own.filter(({ role }) => role === last);
    const [exit] = exits;
    if (exit === undefined || exits.length > 1)
      return { reason: `the ${part} ends in ${exits.length} matrices` };
    const biases = branch.add.contributions.filter((value) => value !== exit.output);
    const foreign = biases.find((value) => !this.constants.has(value));
    if (foreign !== undefined || biases.length === branch.add.contributions.length) {
      return {
        reason: `the ${part} adds more to the stream than one matrix gives ("${foreign ?? biases[0]}")`,
      };
    }
    const norm = this.#norm(entries, branch);
    if ('reason' in norm) return { reason: `${norm.reason} (${part})` };
    return { layer, branch, norm, entries, exit, biases, core: this.#core(entries, exit) };
  }

  /** The one norm that all first matrices of a branch stand behind. */
  #norm(entries: readonly LinearMap[], branch: BranchAnatomy): EntryNorm | NotMergeable {
    const sources = new Set(entries.map(({ input }) => this.#unfolded(input)));
    const [output] = sources;
    if (output === undefined || sources.size > 1)
      return { reason: 'its first matrices read different values' };
    if (branch.norm === 'none')
      return { reason: 'there is no norm at its beginning, so members cannot share one' };
    const norm = entryNorm(this.producers, this.constants, output, (entries[0] as LinearMap).inFeatures);
    if (norm === undefined) return { reason: `the norm that gives "${output}" could not be read` };
    const within = new Set(entries.flatMap(({ nodes }) => nodes));
    const other = this.dataflow
      .consumers(output)
      .find(({ node }) => !within.has(node) && !FOLDS.has(node.opType));
    if (other !== undefined) return { reason: `${describeNode(other.node)} reads the norm, too` };
    return norm;
  }

  /** The value that a map's input holds, before batch and sequence were folded. */
  #unfolded(value: string): string {
    const node = this.producers.get(value);
    return node !== undefined && FOLDS.has(node.opType) ? this.#unfolded(node.input[0] as string) : value;
  }

  #core(entries: readonly LinearMap[], exit: LinearMap): Node[] {
    const starts = new Set(entries.map(({ output }) => output));
    const behind = this.dataflow.reachableFrom(starts);
    const before = this.dataflow.reaching([exit.input], (value) => starts.has(value));
    return [...before]
      .filter((operation) => behind.has(operation))
      .sort((a, b) => a.index - b.index)
      .map(({ node }) => node);
  }

  async #compare(first: MemberBranch, other: MemberBranch): Promise<FreeInputs | NotMergeable> {
    if (first.entries.length !== other.entries.length) {
      return {
        reason: `one begins with ${first.entries.length} matrices, the other with ${other.entries.length}`,
      };
    }
    return (await this.#compareNorms(first, other)) ?? this.#compareCores(first, other);
  }

  /** What lies between the first matrices and the last one. */
  async #compareCores(first: MemberBranch, other: MemberBranch): Promise<FreeInputs | NotMergeable> {
    const core = new Set(first.core);
    const seeds = new Map([
      ...streams(first, other),
      [first.norm.output, other.norm.output],
      ...first.entries.flatMap((map, k): [string, string][] => {
        const theirs = other.entries[k] as LinearMap;
        return [
          [map.input, theirs.input],
          [map.output, theirs.output],
        ];
      }),
      ...first.layer.cache.inputs.map((name, k): [string, string] => [
        name,
        other.layer.cache.inputs[k] ?? '',
      ]),
    ]);
    return this.#sameness.compare(first.exit.input, other.exit.input, {
      seeds,
      free: (node, slot) => core.has(node) && this.#isWeight(node, slot),
    });
  }

  /** Norms that are one operator may be fused with the sum before them in one layer and not in another. */
  async #compareNorms(first: MemberBranch, other: MemberBranch): Promise<NotMergeable | undefined> {
    const operators = [first, other].map(operatorNorm);
    if (operators.every((operator) => operator !== undefined)) {
      const [a, b] = operators;
      return a === b ? undefined : { reason: `one begins with ${a}, the other with ${b}` };
    }
    const weights = [first.norm.gain, first.norm.shift];
    const found = await this.#sameness.compare(first.norm.output, other.norm.output, {
      seeds: new Map(streams(first, other)),
      free: (node, slot) => weights.some((weight) => weight?.node === node && weight.slot === slot),
    });
    return isDifference(found) ? found : undefined;
  }

  /** Gains and biases inside a branch, which may differ; scales of attention and the like are single numbers. */
  #isWeight(node: Node, slot: number): boolean {
    const value = node.input[slot] ?? '';
    return HAS_WEIGHTS.has(node.opType) && this.constants.has(value) && (this.constants.size(value) ?? 0) > 1;
  }
}

/** Values of the stream that are the same for both. */
function streams(first: MemberBranch, other: MemberBranch): [string, string][] {
  return [
    [first.branch.add.skip, other.branch.add.skip],
    [first.layer.input, other.layer.input],
  ];
}

/** A norm that is one operator on the stream, in words: which, and what it adds to the variance. */
function operatorNorm({ norm, branch }: MemberBranch): string | undefined {
  const node = norm.gain?.node;
  const operator = node === undefined ? undefined : NORM_OPERATORS[node.opType];
  if (node === undefined || operator === undefined || node.output[0] !== norm.output) return undefined;
  const fused = isSkipNorm(node);
  const reads = fused ? skipSumName(node) : node.input[0];
  const axis = intAttribute(node, 'axis') ?? -1;
  if (reads !== branch.add.skip || axis !== -1) return undefined;
  const epsilon = floatAttribute(node, 'epsilon') ?? (fused ? 1e-12 : 1e-5);
  return `${operator} of epsilon ${epsilon}`;
}

const NORM_OPERATORS: Readonly<Record<string, string>> = {
  LayerNormalization: 'LayerNormalization',
  RMSNormalization: 'RMSNormalization',
  SimplifiedLayerNormalization: 'RMSNormalization',
  SkipLayerNormalization: 'LayerNormalization',
  SkipSimplifiedLayerNormalization: 'RMSNormalization',
};

export const FOLDS: ReadonlySet<string> = new Set(['Flatten', 'Identity', 'Reshape', 'Squeeze', 'Unsqueeze']);

const HAS_WEIGHTS = new Set([
  'Add',
  'BiasGelu',
  'FastGelu',
  'LayerNormalization',
  'Mul',
  'RMSNormalization',
  'SimplifiedLayerNormalization',
]);

import { AnatomyError, type Plan, PlanError, type PlanGroup, parsePlan } from '@cqil/core';
import { describeNode, type Model, type Node, nodeInputs } from '../../onnx/index.js';
import { PLAN_METADATA_KEY } from '../branches.js';

/** One branch of a group, as a planned graph has it. */
export interface Branch {
  /** What the layer's attention adds to the stream; in a parallel block with its FFN. */
  readonly attention: string | undefined;
  /** What its FFN adds. */
  readonly ffn: string | undefined;
  /** Whether another branch's FFN reads the attention's output, or the own FFN reads another branch's. */
  readonly exchanges: boolean;
}

/** Where a group of form `branches` begins and ends in a planned graph. */
export interface GroupJoint {
  readonly group: PlanGroup;
  /** The value that all branches read. */
  readonly input: string;
  /** The node that makes it: its other outputs belong to the border as well. */
  readonly before: Node;
  readonly branches: readonly Branch[];
  /** The node that adds up what the branches give; it makes the stream behind the group. */
  readonly join: Node;
}

/**
 * The groups of a graph that `rewriteBranches` wrote, by the joints that it named.
 *
 * @throws PlanError `MODEL_NOT_PLANNED`; AnatomyError `PARTITION_JOINT` where the joints are not as they were written
 */
export function groupJoints(model: Model): GroupJoint[] {
  const plan = planOf(model);
  const reader = new JointReader(model);
  return plan.groups.flatMap((group, index) =>
    (group.form ?? 'branches') === 'branches' ? [reader.joint(group, index)] : [],
  );
}

function planOf(model: Model): Plan {
  const text = model.metadata(PLAN_METADATA_KEY);
  const plan = text === undefined ? undefined : parsePlan(text);
  if (plan?.groups.some(({ form }) => (form ?? 'branches') === 'branches')) return plan;
  throw new PlanError('MODEL_NOT_PLANNED', 'The model has no groups whose branches could run side by side.', {
    expected: 'a model that `cqil rewrite` wrote by a plan with groups of form "branches"',
    found: plan === undefined ? 'no plan in its metadata' : `${plan.groups.length} groups, none of that form`,
    hint: 'Write one with `cqil rewrite <model> --plan plan.json --out <folder>`.',
  });
}

class JointReader {
  readonly #producers: ReadonlyMap<string, Node>;
  readonly #nodes: ReadonlyMap<string, Node>;
  readonly #past: ReadonlySet<string>;

  constructor(model: Model) {
    this.#producers = model.graph.producers();
    this.#nodes = new Map(model.graph.nodes.map((node) => [node.name, node]));
    this.#past = new Set(model.graph.feeds.map(({ name }) => name).filter((name) => /^past[._]/.test(name)));
  }

  joint(group: PlanGroup, index: number): GroupJoint {
    const prefix = `/cqil/group.${index}`;
    const join = this.#nodes.get(`${prefix}/output`) ?? this.#nodes.get(`${prefix}/output/Add`);
    const [input, sum] = join?.input ?? [];
    const before = input === undefined ? undefined : this.#producers.get(input);
    if (join === undefined || input === undefined || sum === undefined || before === undefined) {
      throw broken(group, `a node "${prefix}/output" that adds the branches to the stream`, describe(join));
    }
    const terms = this.#terms(sum, `${prefix}/sum/`);
    const branches = this.#branches(terms, before.output);
    if (branches.length !== group.layers.length) {
      throw broken(group, `${group.layers.length} branches`, `${branches.length} in ${terms.length} terms`);
    }
    return { group, input, before, branches, join };
  }

  /** What a tree of the group's own sums adds up, in order. */
  #terms(value: string, prefix: string): string[] {
    const node = this.#producers.get(value);
    if (node === undefined) return [];
    if (node.opType !== 'Add' || !node.name.startsWith(prefix)) return [value];
    return node.input.flatMap((input) => this.#terms(input, prefix));
  }

  /** The terms come layer by layer, the attention before the FFN: only the attention reaches a cache. */
  #branches(terms: readonly string[], border: readonly string[]): Branch[] {
    const reads = new Map(terms.map((term) => [term, this.#reads(term, new Set(terms), new Set(border))]));
    const found: { attention: string | undefined; ffn: string | undefined }[] = [];
    for (const term of terms) {
      const last = found.at(-1);
      if (reads.get(term)!.past) found.push({ attention: term, ffn: undefined });
      else if (last !== undefined && last.ffn === undefined) last.ffn = term;
      else found.push({ attention: undefined, ffn: term });
    }
    const foreign = new Set<string>();
    for (const { attention, ffn } of found) {
      if (ffn === undefined) continue;
      for (const term of reads.get(ffn)!.terms) if (term !== attention) foreign.add(term).add(ffn);
    }
    return found.map((branch) => ({
      ...branch,
      exchanges: [branch.attention, branch.ffn].some((term) => term !== undefined && foreign.has(term)),
    }));
  }

  /** Which other terms go into a term, and whether a cache does, up to the group's border. */
  #reads(
    term: string,
    terms: ReadonlySet<string>,
    border: ReadonlySet<string>,
  ): { terms: Set<string>; past: boolean } {
    const found = new Set<string>();
    const seen = new Set<Node>();
    let past = false;
    for (const open = [...this.#inputsOf(term)]; open.length > 0; ) {
      const value = open.pop() as string;
      if (terms.has(value)) found.add(value);
      if (terms.has(value) || border.has(value)) continue;
      if (this.#past.has(value)) past = true;
      const node = this.#producers.get(value);
      if (node === undefined || seen.has(node)) continue;
      seen.add(node);
      open.push(...nodeInputs(node));
    }
    return { terms: found, past };
  }

  #inputsOf(value: string): string[] {
    const node = this.#producers.get(value);
    return node === undefined ? [] : nodeInputs(node);
  }
}

function describe(node: Node | undefined): string {
  return node === undefined ? 'none' : describeNode(node);
}

function broken(group: PlanGroup, expected: string, found: string): AnatomyError {
  return new AnatomyError(
    'PARTITION_JOINT',
    `The group of layers ${group.layers.join(', ')} cannot be told apart.`,
    {
      expected,
      found,
      hint: 'Cut the model as `cqil rewrite` wrote it, before other programs change it. A model that adds to the stream in several shapes cannot be cut.',
    },
  );
}

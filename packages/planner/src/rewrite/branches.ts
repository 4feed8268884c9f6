import {
  AnatomyError,
  effectiveBypass,
  type GroupForm,
  type Plan,
  PlanError,
  type PlanGroup,
  parsePlan,
  stringifyPlan,
  validatePlan,
} from '@cqil/core';
import { SKIP_NORMS } from '../anatomy/dataflow.js';
import { type Anatomy, analyze, type BranchAnatomy, type LayerAnatomy } from '../anatomy/index.js';
import { intAttribute, type Model, makeNode, type Node } from '../onnx/index.js';
import { cloneNode } from '../onnx/model.js';
import { GraphEdit } from './graph-edit.js';
import { Names } from './names.js';
import { lastBranch, plainNorm, trimmed } from './skip-norm.js';

/** Under which key a model's plan stands in its ONNX metadata. */
export const PLAN_METADATA_KEY = 'cqil.plan';

export interface RewriteResult {
  readonly model: Model;
  /** What the user should know, a sentence each: for example that a bypass does not exist in this model. */
  readonly notes: readonly string[];
}

/**
 * Rewrites a decoder graph by a plan, in the `branches` form: all layers of a group read the group's input x,
 * and one sum joins them,
 *
 *     f_j = x + a_j + Σ a_k   over the layers k that the bypass reaches
 *     y   = x + Σ_j (a_j + m_j)
 *
 * with a_j the attention's and m_j the FFN's contribution of layer j (CQIL, arXiv 2404.06709; `'full'` is Layer
 * Parallelism, arXiv 2502.02790). The bypass reaches what the FFN reads, never the residual a second time.
 *
 * Requires: a graph that `analyze` understands. Ensures: the same inputs and outputs in the same order, the same
 * weights; nodes of the new joints are named `/cqil/group.<i>/…`. The given model is not changed. A plan without
 * groups gives back the same graph.
 *
 * @throws PlanError when the plan does not fit the model, or `MODEL_ALREADY_PLANNED`; AnatomyError when the graph is not understood
 */
export function rewriteBranches(source: Model, plan: Plan): RewriteResult {
  refusePlanned(source);
  const model = source.clone();
  // Analysed after cloning, so that the nodes it names are the ones to be changed.
  const anatomy = analyze(model);
  checkPlan(plan, anatomy, ['branches']);
  model.setMetadata(PLAN_METADATA_KEY, stringifyPlan(plan));
  if (plan.groups.length === 0) return { model, notes: [] };

  const edit = new GraphEdit(model.graph);
  const notes = applyBranches(edit, new Names(model), anatomy, plan);
  if (!edit.apply()) throw waitingForEachOther(plan);
  return { model, notes };
}

/**
 * The changes that the groups of form `branches` ask for, collected in `edit`; groups of other forms are left out unless
 * they are in `packed`.
 *
 * @param packed groups whose branches are joined in the same way, though parts of them were made one: the value that
 *   holds the sum of what all their FFNs add to the stream, where there is one
 * @returns what the user should know
 */
export function applyBranches(
  edit: GraphEdit,
  names: Names,
  anatomy: Anatomy,
  plan: Plan,
  packed: ReadonlyMap<number, string | undefined> = new Map(),
): string[] {
  for (const [index, group] of plan.groups.entries()) {
    if ((group.form ?? 'branches') !== 'branches' && !packed.has(index)) continue;
    const layers = group.layers.map((layer) => anatomy.layers[layer] as LayerAnatomy);
    new GroupRewrite(edit, names, `/cqil/group.${index}`, layers, group, packed.get(index)).run();
  }
  return notesOn(plan, anatomy);
}

/** A group is one block to the analysis, so a second plan would not mean the layers its author counted. */
export function refusePlanned(model: Model): void {
  const planned = model.metadata(PLAN_METADATA_KEY);
  if (planned === undefined || parsePlan(planned).groups.length === 0) return;
  throw new PlanError('MODEL_ALREADY_PLANNED', 'This model is rewritten by a plan already.', {
    expected: 'an original model',
    found: `one with the plan ${planned.replaceAll(/\s+/g, ' ').slice(0, 120)}`,
    hint: 'Use the plan on the original model.',
  });
}

/** @throws PlanError */
export function checkPlan(plan: Plan, anatomy: Anatomy, forms: readonly GroupForm[]): void {
  const notGroupable = new Map(plan.groups.flatMap((group) => [...groupObstacles(group, anatomy)]));
  validatePlan(plan, { layers: anatomy.layers.length, forms, notGroupable });
}

/** Why layers cannot be in this group, by layer; empty where they can. */
export function groupObstacles(group: PlanGroup, anatomy: Anatomy): Map<number, string> {
  const { layers, bypass } = group;
  const obstacles = new Map<number, string>();
  for (const layer of layers) {
    const reason = anatomy.layers[layer]?.ungroupable;
    if (reason !== undefined) obstacles.set(layer, reason);
  }
  const first = layers[0] as number;
  const makes = layers.map((layer) => carrierKinds(anatomy.layers[layer]));
  const other = layers.find((_, j) => makes[j] !== makes[0]);
  if (other !== undefined) {
    obstacles.set(other, `its FFN reads the stream in another type or shape than that of layer ${first}`);
  }
  if (bypass === 'full' && anatomy.layers[first]?.kind === 'ffn-only') {
    obstacles.set(
      first,
      'it has no attention, and a group with bypass "full" cannot begin with such a layer',
    );
  }
  return obstacles;
}

/** In which way the stream changes type or shape between a layer's attention and its FFN. */
function carrierKinds(layer: LayerAnatomy | undefined): string {
  const carriers = layer?.kind === 'sequential' ? (layer.attention?.add.carriers ?? []) : [];
  return describeCarriers(carriers);
}

function describeCarriers(carriers: readonly Node[]): string {
  return carriers.map((node) => `${node.opType} ${intAttribute(node, 'to') ?? ''}`).join();
}

function notesOn(plan: Plan, anatomy: Anatomy): string[] {
  return plan.groups.flatMap((group) => {
    const kinds = new Set(group.layers.map((layer) => (anatomy.layers[layer] as LayerAnatomy).kind));
    if (kinds.size !== 1 || !kinds.has('parallel') || group.bypass === 0) return [];
    const [first, last] = [group.layers[0], group.layers.at(-1)];
    return [
      `Layers ${first} to ${last} compute attention and FFN from the same input, so no bypass exists there: ` +
        `bypass ${JSON.stringify(group.bypass)} means the same as 0.`,
    ];
  });
}

export function waitingForEachOther(plan: Plan): AnatomyError {
  const full = plan.groups.find((group) => group.bypass === 'full');
  return new AnatomyError('REWRITE_CYCLE', 'The rewritten layers would wait for each other.', {
    expected: 'attention that does not depend on an FFN of its own group',
    found: full === undefined ? 'a cycle' : `a cycle; layers ${full.layers.join(', ')} have bypass "full"`,
    hint: 'Use a numeric bypass for this model.',
  });
}

class GroupRewrite {
  /** The group's input, which all branches read. */
  readonly #x: string;

  constructor(
    readonly edit: GraphEdit,
    readonly names: Names,
    readonly prefix: string,
    readonly layers: readonly LayerAnatomy[],
    readonly group: PlanGroup,
    /** The sum of all FFNs' contributions, where one product gives it. */
    readonly ffnSum: string | undefined,
  ) {
    this.#x = (layers[0] as LayerAnatomy).input;
  }

  run(): void {
    const attention = this.layers.map((layer) => this.#contribution(layer, layer.attention, 'attention'));
    this.#ffnInputs(attention);
    if (this.ffnSum === undefined) {
      const ffn = this.layers.map((layer) => this.#contribution(layer, layer.ffn, 'ffn'));
      this.#joinOutput(attention, ffn);
    } else this.#joinOutput(attention, [this.ffnSum]);
  }

  /**
   * What a step adds to the stream, as one value. The sum is made just before the old residual sum stood, whose
   * place all that joins the branches takes.
   */
  #contribution(layer: LayerAnatomy, branch: BranchAnatomy | undefined, part: string): string | undefined {
    if (branch === undefined) return undefined;
    return this.#sum(branch.add.contributions, `layer.${layer.index}/${part}`, branch.add.node);
  }

  /** What each FFN reads: x, and the attention outputs that the bypass lets through. */
  #ffnInputs(attention: readonly (string | undefined)[]): void {
    const bypass = effectiveBypass(this.group);
    const everything = bypass === 'full' ? attention.filter((value) => value !== undefined) : [];
    const shared = new Map<string, string>();
    for (const [j, layer] of this.layers.entries()) {
      if (layer.ffn === undefined) continue;
      const reaching =
        bypass === 'full'
          ? everything
          : attention.slice(Math.max(0, j - bypass), j + 1).filter((value) => value !== undefined);
      this.#ffnInput(layer, j, this.#prefixSum(reaching, layer, shared));
    }
  }

  /** The sum of attention outputs; two FFNs that read the same ones, or one more, share what they can. */
  #prefixSum(terms: readonly string[], layer: LayerAnatomy, shared: Map<string, string>): string | undefined {
    const place = (layer.attention ?? this.layers.find((other) => other.attention !== undefined)?.attention)
      ?.add.node;
    let sum: string | undefined;
    for (const [count, term] of terms.entries()) {
      if (sum === undefined) {
        sum = term;
        continue;
      }
      const key = terms.slice(0, count + 1).join('\0');
      const known = shared.get(key);
      sum = known ?? this.#add(sum, term, `layer.${layer.index}/bypass/Add`, place as Node);
      shared.set(key, sum);
    }
    return sum;
  }

  #ffnInput(layer: LayerAnatomy, j: number, reaching: string | undefined): void {
    const { attention } = layer;
    if (attention !== undefined) {
      // The old sum's place and name, so that the FFN reads it as it did before.
      this.#replaceAdd(attention, reaching as string, `layer.${layer.index}/ffn_input`);
      return;
    }
    // A layer that is an FFN only has no sum of its own before it; as the group's first, it reads x already.
    const before = this.layers[j - 1];
    if (before === undefined) return;
    const input =
      reaching === undefined
        ? this.#x
        : this.#add(this.#x, reaching, `layer.${layer.index}/ffn_input/Add`, lastBranch(before).add.node);
    this.#startBranch(layer, before, input);
  }

  /** Makes all layers but the first read the group's input, and the last sum the group's output. */
  #joinOutput(attention: readonly (string | undefined)[], ffn: readonly (string | undefined)[]): void {
    for (const [j, layer] of this.layers.entries()) {
      const before = this.layers[j - 1];
      if (before !== undefined && layer.attention !== undefined) this.#startBranch(layer, before, this.#x);
    }
    const layer = this.layers.at(-1) as LayerAnatomy;
    const last = lastBranch(layer);
    const bypass = effectiveBypass(this.group);
    const reachesAll = bypass === 'full' || bypass >= this.layers.length - 1;
    if (this.ffnSum !== undefined && reachesAll && layer.attention !== undefined) {
      // What the last FFN reads is x and all attention outputs.
      this.#replaceAdd(last, this.ffnSum, 'output', last.add.skip);
      return;
    }
    if (!this.layers.every(addsInOneShape)) {
      const carriers = layer.attention?.add.carriers ?? [];
      const half = this.#sum([this.#x, ...defined(attention)], 'attention_sum', last.add.node) as string;
      const sum = this.#sum(defined(ffn), 'sum', last.add.node) as string;
      this.#replaceAdd(last, sum, 'output', this.#carry(half, carriers, last.add.node));
      return;
    }
    const terms =
      this.ffnSum === undefined
        ? this.layers.flatMap((_, j) => defined([attention[j], ffn[j]]))
        : defined([...attention, this.ffnSum]);
    this.#replaceAdd(last, this.#sum(terms, 'sum', last.add.node) as string, 'output');
  }

  /** Brings a value of the stream into the type and shape in which the FFN's contributions are added to it. */
  #carry(value: string, carriers: readonly Node[], place: Node): string {
    let carried = value;
    for (const carrier of carriers) {
      const node = cloneNode(carrier);
      node.name = this.names.fresh(`${this.prefix}/attention_sum/${node.opType}`);
      node.input = [carried, ...carrier.input.slice(1)];
      carried = this.names.fresh(`${node.name}_output_0`);
      node.output = [carried];
      this.edit.replace(place, [node]);
    }
    return carried;
  }

  /** Lets a layer read `input` instead of the sum behind the layer before it, which goes. */
  #startBranch(layer: LayerAnatomy, before: LayerAnatomy, input: string): void {
    const { add } = lastBranch(before);
    const norm = add.fused
      ? [plainNorm(add.node, input, `${this.prefix}/layer.${layer.index}/input_norm`)]
      : [];
    this.edit.replace(add.node, norm);
    this.edit.read(add.sum, input);
    this.edit.read(add.carried, input);
  }

  /** Puts `x + value` (or another value than x) where a residual sum stood, under the sum's name, fused with the norm if it was. */
  #replaceAdd(branch: BranchAnatomy, value: string, name: string, skip = this.#x): void {
    const { node, fused, sum } = branch.add;
    const nodeName = this.names.fresh(`${this.prefix}/${name}${fused ? '' : '/Add'}`);
    if (!fused) {
      this.edit.replace(node, [makeNode('Add', [skip, value], [sum], { name: nodeName })]);
      return;
    }
    const { bias } = SKIP_NORMS[node.opType] as { bias: number };
    const weights = node.input.slice(2, bias);
    const copy = cloneNode(node);
    copy.name = nodeName;
    copy.input = trimmed([skip, value, ...weights]);
    this.edit.replace(node, [copy]);
  }

  #sum(terms: readonly string[], name: string, place: Node): string | undefined {
    return terms.reduce<string | undefined>(
      (sum, term) => (sum === undefined ? term : this.#add(sum, term, `${name}/Add`, place)),
      undefined,
    );
  }

  #add(left: string, right: string, name: string, place: Node): string {
    const nodeName = this.names.fresh(`${this.prefix}/${name}`);
    const output = this.names.fresh(`${nodeName}_output_0`);
    this.edit.replace(place, [makeNode('Add', [left, right], [output], { name: nodeName })]);
    return output;
  }
}

function defined(values: readonly (string | undefined)[]): string[] {
  return values.filter((value) => value !== undefined);
}

/**
 * Whether attention and FFN are added to the stream in one type and shape: nothing carries it from one sum to the
 * other, or casts do that bring both sums to the same type (exports of models that normalise in float32).
 */
function addsInOneShape(layer: LayerAnatomy): boolean {
  if (layer.kind !== 'sequential') return true;
  const carriers = carrierKinds(layer);
  if (carriers === '') return true;
  const onlyCasts = layer.attention?.add.carriers.every((node) => node.opType === 'Cast') === true;
  return onlyCasts && carriers === describeCarriers(layer.ffn?.add.carriers ?? []);
}

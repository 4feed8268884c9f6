import { SKIP_NORMS } from '../../anatomy/dataflow.js';
import type { BranchAnatomy } from '../../anatomy/index.js';
import { makeNode, type Node } from '../../onnx/index.js';
import { cloneNode } from '../../onnx/model.js';
import type { GraphEdit } from '../graph-edit.js';
import type { Names } from '../names.js';
import { trimmed } from '../skip-norm.js';
import { wideAttention } from './attention.js';
import { wideFfn } from './ffn.js';
import type { Member, Mergeable, WideReader } from './members.js';
import type { WideBranchRecord, WideGroupRecord } from './metadata.js';
import { Emitter, type WideStorage } from './product.js';
import { WideBranch } from './wide-branch.js';
import type { LatestMatrix } from './wide-matrix.js';

/** What the parts of a wide layer may ask of the change of the graph. */
export interface Edit {
  /** A node whose outputs something else gives from now on. */
  remove(node: Node): void;
}

export function editing(edit: GraphEdit): Edit {
  return { remove: (node) => edit.replace(node, []) };
}

export interface WideGroupOptions {
  readonly reader: WideReader;
  readonly edit: GraphEdit;
  readonly names: Names;
  readonly storage: WideStorage;
  readonly latest: LatestMatrix;
}

/**
 * Puts one decoder layer in the place of a group's members:
 *
 *     f = x + Σ_j a_j        y = f + Σ_j m_j
 *
 * with every a_j computed from one norm of x, and every m_j from one norm of f: what bypass `'full'` means (Layer
 * Parallelism, arXiv 2502.02790).
 */
export class WideGroup {
  readonly #attention: WideBranch;
  readonly #ffn: WideBranch;
  readonly #parts: { readonly attention: Emitter; readonly ffn: Emitter };

  constructor(
    /** Of the plan. */
    readonly index: number,
    readonly mergeable: Mergeable,
    readonly options: WideGroupOptions,
  ) {
    const { reader, names, storage, latest } = options;
    const prefix = `/cqil/group.${index}`;
    const emitter = () => new Emitter(reader.model, names, prefix);
    this.#parts = { attention: emitter(), ffn: emitter() };
    const branch = (part: 'attention' | 'ffn') =>
      new WideBranch(
        mergeable.members.map((member) => member[part]),
        { reader, storage, latest, emitter: this.#parts[part] },
      );
    this.#attention = branch('attention');
    this.#ffn = branch('ffn');
  }

  /** To be done for all groups before the graph is changed anywhere: see `WideBranch.shareNorm`. */
  async shareNorms(): Promise<void> {
    const bypass = (value: string, instead: string) => this.options.edit.read(value, instead);
    await this.#attention.shareNorm(bypass);
    await this.#ffn.shareNorm(bypass);
  }

  async run(): Promise<WideGroupRecord> {
    const { edit } = this.options;
    const { members } = this.mergeable;
    const [first, last] = [members[0] as Member, members.at(-1) as Member];
    const attention = await wideAttention(this.#attention, this.mergeable.attention, editing(edit));
    this.#replaceAdd(first.attention.branch, first.attention.layer.input, attention, 'attention');
    const ffn = await wideFfn(this.#ffn, this.mergeable.ffn, editing(edit));
    this.#replaceAdd(last.ffn.branch, first.ffn.branch.add.skip, ffn, 'ffn');
    this.#forget(first, members.slice(1));
    return {
      group: this.index,
      layers: members.map(({ index }) => index),
      attention: branchRecord(this.#attention),
      ffn: branchRecord(this.#ffn),
    };
  }

  /** Puts `skip + value` where a residual sum stood, under the sum's name, fused with the norm if it was. */
  #replaceAdd(branch: BranchAnatomy, skip: string, value: string, part: 'attention' | 'ffn'): void {
    const { node, fused, sum } = branch.add;
    const name = this.options.names.fresh(`/cqil/group.${this.index}/${part}/output${fused ? '' : '/Add'}`);
    const { nodes } = this.#parts[part];
    if (fused) {
      const { bias } = SKIP_NORMS[node.opType] as { bias: number };
      const copy = cloneNode(node);
      copy.name = name;
      copy.input = trimmed([skip, value, ...node.input.slice(2, bias)]);
      nodes.push(copy);
    } else nodes.push(makeNode('Add', [skip, value], [sum], { name }));
    this.options.edit.replace(node, nodes);
  }

  /** States of the stream inside the group are gone; who reads their shapes finds the same in the first member's. */
  #forget(first: Member, others: readonly Member[]): void {
    const { edit } = this.options;
    const middle = first.attention.branch.add;
    let before = first;
    for (const member of others) {
      const { sum, carried } = before.ffn.branch.add;
      for (const value of [sum, carried]) edit.read(value, first.attention.layer.input);
      const own = member.attention.branch.add;
      edit.read(own.sum, middle.sum);
      edit.read(own.carried, middle.carried);
      edit.read(member.attention.norm.output, this.#attention.normOutput);
      edit.read(member.ffn.norm.output, this.#ffn.normOutput);
      before = member;
    }
  }
}

export function branchRecord({ products, sharedGain }: WideBranch): WideBranchRecord {
  return { ...(sharedGain === undefined ? {} : { gain: sharedGain }), products: [...products] };
}

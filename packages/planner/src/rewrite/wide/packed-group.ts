import type { Node } from '../../onnx/index.js';
import { packedAttention } from './attention.js';
import { oneExit } from './exit.js';
import type { MemberBranch, Packable } from './members.js';
import type { WideGroupRecord } from './metadata.js';
import { Emitter } from './product.js';
import { WideBranch } from './wide-branch.js';
import { branchRecord, editing, type WideGroupOptions } from './wide-group.js';

/**
 * Makes one of everything in a group that all members have in common, whatever the group's bypass:
 *
 *     f_j = x + Σ_k a_k       y = x + Σ_j a_j + Σ_j m_j
 *
 * with all a_k computed from one norm of x by one product and, where the heads are alike, one attention; and Σ_j m_j by
 * one product. What each FFN reads, its first matrices and each attention's last one stay the members' own, since the
 * bypass lets other sums through to each.
 */
export class PackedGroup {
  readonly #attention: { readonly branch: WideBranch; readonly emitter: Emitter } | undefined;
  readonly #ffn: { readonly branch: WideBranch; readonly emitter: Emitter } | undefined;

  constructor(
    /** Of the plan. */
    readonly index: number,
    readonly layers: readonly number[],
    readonly packable: Packable,
    readonly options: WideGroupOptions,
  ) {
    const { attention, ffn } = packable;
    this.#attention = 'reason' in attention ? undefined : this.#branch(attention.members);
    this.#ffn = 'reason' in ffn ? undefined : this.#branch(ffn);
  }

  #branch(members: readonly MemberBranch[]) {
    const { reader, names, storage, latest } = this.options;
    const emitter = new Emitter(reader.model, names, `/cqil/group.${this.index}`);
    return { branch: new WideBranch(members, { reader, storage, latest, emitter }), emitter };
  }

  /** To be done for all groups before the graph is changed anywhere: see `WideBranch.shareNorm`. */
  async shareNorms(): Promise<void> {
    await this.#attention?.branch.shareNorm((value, instead) => this.options.edit.read(value, instead));
  }

  /** @returns what was merged, and the value that holds the sum of what all FFNs add, where that is one product's */
  async run(): Promise<{ record: WideGroupRecord; ffnSum: string | undefined }> {
    const { edit, reader } = this.options;
    const record: WideGroupRecord = { group: this.index, layers: [...this.layers] };
    if (this.#attention !== undefined && !('reason' in this.packable.attention)) {
      const { branch, emitter } = this.#attention;
      await packedAttention(branch, this.packable.attention.free, editing(edit));
      const [entry] = branch.first.entries as [MemberBranch['entries'][number]];
      edit.replace(reader.producers.get(entry.output) as Node, emitter.nodes);
      record.attention = branchRecord(branch);
    }
    if (this.#ffn === undefined) return { record, ffnSum: undefined };
    const { branch, emitter } = this.#ffn;
    const ffnSum = await oneExit(branch, 'ffn/down', 'ffn/members');
    edit.replace((branch.members.at(-1) as MemberBranch).branch.add.node, emitter.nodes);
    record.ffn = branchRecord(branch);
    return { record, ffnSum };
  }
}

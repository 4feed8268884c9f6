import { type Plan, PlanError, type PlanGroup, stringifyPlan } from '@cqil/core';
import type { SessionOptions } from '@cqil/runtime-gpu';
import { type Anatomy, analyze } from '../../anatomy/index.js';
import type { Model } from '../../onnx/index.js';
import {
  applyBranches,
  checkPlan,
  PLAN_METADATA_KEY,
  type RewriteResult,
  refusePlanned,
  rewriteBranches,
  waitingForEachOther,
} from '../branches.js';
import { GraphEdit } from '../graph-edit.js';
import { Names } from '../names.js';
import { dropUnreadWeights, readValues } from '../unread-weights.js';
import { type CacheForm, mergeCaches } from './kv.js';
import { type Mergeable, type NotMergeable, type Packable, WideReader } from './members.js';
import { setWideGroups, type WideGroupRecord } from './metadata.js';
import { PackedGroup } from './packed-group.js';
import type { WideStorage } from './product.js';
import { WideGroup } from './wide-group.js';
import { LatestMatrix } from './wide-matrix.js';

export interface WideOptions {
  /** How the matrices of wide layers are stored; `auto` when absent. */
  readonly storage?: WideStorage;
  /**
   * The graph's cache: one pair for each original layer, as loaders of the original expect (`layers`, when absent), or
   * one for each wide layer (`merged`), which engines that write it in place need.
   */
  readonly kv?: CacheForm;
  readonly session?: SessionOptions;
}

/** Whether a group's matrices are put together. */
export function merges({ form }: PlanGroup): boolean {
  return form === 'wide' || form === 'packed';
}

/**
 * Rewrites a decoder graph by a plan, each group in its form.
 *
 * A group of form `wide` becomes one ordinary decoder layer: one norm for all members, without gain, their gains folded
 * into the matrices behind it in floating point (matrices in blocks: with the gain of one member, whose codes then
 * stay); q, k, v, gate and up side by side, o and down below each other; all members' heads in one attention. That is
 * what bypass `'full'` means, so no other bypass has this form.
 *
 * A group of form `packed` may have any bypass: what its members have in common is made one, the rest is as in `branches`
 * (see `PackedGroup`). With bypass `'full'` it is a wide layer where it can be one.
 *
 * The matrices are put together when they are read or written, one at a time.
 *
 * @throws PlanError as `rewriteBranches`, and `PLAN_WIDE_IMPOSSIBLE` for a group that is no one layer, and
 *   `PLAN_PACKED_IMPOSSIBLE` for one that has nothing in common, with the reason;
 *   UsageError `WIDE_STORAGE`, `KV_NAMES`; AnatomyError; InferenceError from reading constants of the graph
 */
export async function rewriteGroups(
  source: Model,
  plan: Plan,
  options: WideOptions = {},
): Promise<RewriteResult> {
  if (!plan.groups.some(merges)) return rewriteBranches(source, plan);
  refusePlanned(source);
  const model = source.clone();
  // Analysed after cloning, so that the nodes it names are the ones to be changed.
  const anatomy = analyze(model);
  checkPlan(plan, anatomy, ['branches', 'wide', 'packed']);
  const reader = new WideReader(model, anatomy, source, options.session);
  const edit = new GraphEdit(model.graph);
  const names = new Names(model);
  const readBefore = readValues(model);
  const shared = { reader, edit, names, storage: options.storage ?? 'auto', latest: new LatestMatrix() };
  const groups: (WideGroup | PackedGroup)[] = [];
  const notes: string[] = [];
  for (const [index, group] of plan.groups.entries()) {
    if (!merges(group)) continue;
    const found = await mergedMembers(group, anatomy, reader);
    if ('reason' in found)
      throw group.form === 'wide'
        ? impossible(index, group, found.reason)
        : nothingToPack(index, group, found.reason);
    if ('wide' in found) groups.push(new WideGroup(index, found.wide, shared));
    else {
      notes.push(...refusals(found.packed).map((reason) => onlyPartly(group, reason)));
      groups.push(new PackedGroup(index, group.layers, found.packed, shared));
    }
  }
  for (const group of groups) await group.shareNorms();
  const records: WideGroupRecord[] = [];
  const ffnSums = new Map<number, string | undefined>();
  for (const group of groups) {
    const made = await group.run();
    if ('record' in made) ffnSums.set(group.index, made.ffnSum);
    records.push('record' in made ? made.record : made);
  }
  notes.push(...applyBranches(edit, names, anatomy, plan, ffnSums));
  if (!edit.apply()) throw waitingForEachOther(plan);
  dropUnreadWeights(model, readBefore);
  if (options.kv === 'merged') mergeCaches(model, anatomy, records);
  model.setMetadata(PLAN_METADATA_KEY, stringifyPlan(plan));
  setWideGroups(model, records);
  return { model, notes };
}

/**
 * Why neighbouring layers cannot be members of a group of form `wide`, or of form `packed` and any bypass: by the first
 * of two, in words; two that can are left out. A run of layers can be such a group where each two neighbours can.
 */
export async function mergeObstacles(
  model: Model,
  anatomy: Anatomy,
  form: 'wide' | 'packed',
  session?: SessionOptions,
): Promise<Map<number, string>> {
  const reader = new WideReader(model, anatomy, model, session);
  const obstacles = new Map<number, string>();
  for (const { index } of anatomy.layers.slice(0, -1)) {
    const layers = [index, index + 1];
    const group: PlanGroup = { layers, bypass: form === 'wide' ? 'full' : 0, form };
    const found = await mergedMembers(group, anatomy, reader);
    if ('reason' in found) obstacles.set(index, found.reason);
  }
  return obstacles;
}

/** As what the members of a group of form `wide` or `packed` are made one, or why they cannot be. */
export async function mergedMembers(
  group: PlanGroup,
  anatomy: Anatomy,
  reader: WideReader,
): Promise<{ readonly wide: Mergeable } | { readonly packed: Packable } | NotMergeable> {
  const wide = await mergeable(group, anatomy, reader);
  if (!('reason' in wide)) return { wide };
  if (group.form === 'wide') return wide;
  const packed = await reader.packable(group.layers);
  const [reason, other] = refusals(packed);
  return reason !== undefined && other !== undefined ? { reason } : { packed };
}

function refusals({ attention, ffn }: Packable): string[] {
  return [attention, ffn].flatMap((part) => ('reason' in part ? [part.reason] : []));
}

async function mergeable(
  group: PlanGroup,
  anatomy: Anatomy,
  reader: WideReader,
): Promise<Mergeable | NotMergeable> {
  const parallel = group.layers.some((layer) => anatomy.layers[layer]?.kind === 'parallel');
  if (group.bypass !== 'full' && !parallel) {
    const reason = `its bypass is ${group.bypass}: only with "full" do all members compute their FFN from one input`;
    return { reason };
  }
  return reader.group(group.layers);
}

function onlyPartly({ layers }: PlanGroup, reason: string): string {
  return `Layers ${layers[0]} to ${layers.at(-1)} are packed in part: ${reason}.`;
}

function nothingToPack(index: number, { layers }: PlanGroup, reason: string): PlanError {
  return new PlanError(
    'PLAN_PACKED_IMPOSSIBLE',
    `nothing of layers ${layers[0]} to ${layers.at(-1)} can be made one`,
    {
      path: `groups[${index}].form`,
      expected: 'members whose attentions begin alike, or whose FFNs end in a matrix',
      found: reason,
      hint: 'Use the form "branches".',
    },
  );
}

function impossible(index: number, { layers }: PlanGroup, reason: string): PlanError {
  return new PlanError(
    'PLAN_WIDE_IMPOSSIBLE',
    `layers ${layers[0]} to ${layers.at(-1)} cannot be written as one wide layer`,
    {
      path: `groups[${index}].form`,
      expected:
        'members that are alike but for their weights, each a sum of attention and FFN behind norms, with bypass "full"',
      found: reason,
      hint: 'Use the form "branches".',
    },
  );
}

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
import { WideReader } from './members.js';
import { setWideGroups, type WideGroupRecord } from './metadata.js';
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

/**
 * Rewrites a decoder graph by a plan whose groups have the form `branches` or `wide`.
 *
 * A group of form `wide` becomes one ordinary decoder layer: one norm for all members, without gain, their gains folded
 * into the matrices behind it in floating point (matrices in blocks: with the gain of one member, whose codes then
 * stay); q, k, v, gate and up side by side, o and down below each other; all members' heads in one attention. That is
 * what bypass `'full'` means, so no other bypass has this form.
 *
 * The matrices are put together when they are read or written, one at a time.
 *
 * @throws PlanError as `rewriteBranches`, and `PLAN_WIDE_IMPOSSIBLE` for a group that is no one layer, with the reason;
 *   UsageError `WIDE_STORAGE`, `KV_NAMES`; AnatomyError; InferenceError from reading constants of the graph
 */
export async function rewriteGroups(
  source: Model,
  plan: Plan,
  options: WideOptions = {},
): Promise<RewriteResult> {
  if (!plan.groups.some(({ form }) => form === 'wide')) return rewriteBranches(source, plan);
  refusePlanned(source);
  const model = source.clone();
  // Analysed after cloning, so that the nodes it names are the ones to be changed.
  const anatomy = analyze(model);
  checkPlan(plan, anatomy, ['branches', 'wide']);
  const reader = new WideReader(model, anatomy, source, options.session);
  const edit = new GraphEdit(model.graph);
  const names = new Names(model);
  const readBefore = readValues(model);
  const shared = { reader, edit, names, storage: options.storage ?? 'auto', latest: new LatestMatrix() };
  const wide: WideGroup[] = [];
  for (const [index, group] of plan.groups.entries()) {
    if (group.form !== 'wide') continue;
    const found = await mergeable(group, anatomy, reader);
    if (typeof found === 'string') throw impossible(index, group, found);
    wide.push(new WideGroup(index, found, shared));
  }
  for (const group of wide) await group.shareNorms();
  const records: WideGroupRecord[] = [];
  for (const group of wide) records.push(await group.run());
  const notes = applyBranches(edit, names, anatomy, plan);
  if (!edit.apply()) throw waitingForEachOther(plan);
  dropUnreadWeights(model, readBefore);
  if (options.kv === 'merged') mergeCaches(model, anatomy, records);
  model.setMetadata(PLAN_METADATA_KEY, stringifyPlan(plan));
  setWideGroups(model, records);
  return { model, notes };
}

/**
 * Why neighbouring layers cannot be members of one wide layer: by the first of two, in words; two that can are left out.
 * A run of layers can be one where each two neighbours can.
 */
export async function wideObstacles(
  model: Model,
  anatomy: Anatomy,
  session?: SessionOptions,
): Promise<Map<number, string>> {
  const reader = new WideReader(model, anatomy, model, session);
  const obstacles = new Map<number, string>();
  for (const { index } of anatomy.layers.slice(0, -1)) {
    const found = await reader.group([index, index + 1]);
    if ('reason' in found) obstacles.set(index, found.reason);
  }
  return obstacles;
}

async function mergeable(group: PlanGroup, anatomy: Anatomy, reader: WideReader) {
  const parallel = group.layers.some((layer) => anatomy.layers[layer]?.kind === 'parallel');
  if (group.bypass !== 'full' && !parallel) {
    return `its bypass is ${group.bypass}: only with "full" do all members compute their FFN from one input`;
  }
  const found = await reader.group(group.layers);
  return 'reason' in found ? found.reason : found;
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

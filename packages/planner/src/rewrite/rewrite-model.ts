import path from 'node:path';
import { type OnProgress, type Plan, stringifyPlan, VerificationError } from '@cqil/core';
import { analyze } from '../anatomy/index.js';
import { linearMaps } from '../linear/index.js';
import { type Model, readModel } from '../onnx/index.js';
import { type RefittedMap, refitPrefix, setRefittedMaps } from '../recover/metadata.js';
import type { ModelSource } from '../source/index.js';
import { packExternalData } from './pack-external-data.js';
import { changedConfigs, merges, rewriteGroups, type WideOptions } from './wide/index.js';
import { assertFree as assertFolderFree, type FolderCheck, writeModelFolder } from './write-folder.js';

export { moveIntoPlace } from './write-folder.js';

/** The name under which a rewritten folder holds its plan. */
export const PLAN_FILE = 'cqil.plan.json';

/** What is checked before the folder gets its name; the returned text says what is wrong, or nothing is. */
export type RewriteCheck = FolderCheck;

export interface RewriteOptions {
  /** Replaces what is in `outDir`, if that is a folder this function wrote. */
  readonly force?: boolean;
  /**
   * What `recover` made of the source: taken in its place, and the refitted maps are listed in the ONNX metadata under
   * `cqil.recovery`. Where the source has its weights in files of their own, they go there, too.
   */
  readonly recovered?: Model;
  /** How groups of form `wide` are written: the storage of their matrices, and the form of their caches. */
  readonly wide?: Pick<WideOptions, 'storage' | 'kv'>;
  /** Looks at the rewritten model before it is kept; `verifyRewritten` is made for it. */
  readonly check?: RewriteCheck;
  readonly signal?: AbortSignal;
  readonly onProgress?: OnProgress;
}

export interface RewrittenModel {
  /** The folder, absolute. */
  readonly root: string;
  /** The rewritten graph, absolute: the source's place and name in the new folder. */
  readonly onnxFile: string;
  readonly notes: readonly string[];
}

/**
 * Rewrites a model on disk into a folder of its own, laid out as the source is: the rewritten graph and its data
 * under their old names, all side files, and the plan as `cqil.plan.json`. The folder appears at once, complete
 * and checked, or not at all.
 *
 * Memory is bounded by the largest tensor (and by what `check` needs, and the matrices that `recovered` holds).
 *
 * @throws UsageError `OUTPUT_NOT_EMPTY`, `OUTPUT_IS_SOURCE`, `WIDE_STORAGE`, `KV_NAMES`; PlanError, AnatomyError, ModelFormatError;
 *   VerificationError `REWRITE_BROKEN`; EnvironmentError `WRITE_FAILED`; the signal's reason
 */
export async function rewriteModel(
  source: ModelSource,
  plan: Plan,
  outDir: string,
  options: RewriteOptions = {},
): Promise<RewrittenModel> {
  const root = path.resolve(outDir);
  await assertFree(root, source, options.force === true);
  const original = await readModel(source.onnxFile);
  const { recovered } = options;
  const { model, notes } = await rewriteGroups(recovered ?? original, plan, options.wide);
  const refitted = recovered === undefined ? [] : refittedIn(recovered, original);
  setRefittedMaps(model, refitted);
  const merged = plan.groups.some(merges);
  if (merged || refitted.length > 0) packExternalData(model, original);

  await writeModelFolder(source, model, root, {
    ...passOn(options),
    document: { file: PLAN_FILE, text: stringifyPlan(plan) },
    changed: await changedConfigs(source, model),
    ...(options.check === undefined ? {} : { check: options.check }),
    broken: (found) =>
      new VerificationError('REWRITE_BROKEN', 'The rewritten model failed its check and was not kept.', {
        expected: "the method's mathematics on the original weights",
        found,
        hint: 'This is a fault of this program; please report it with the output of `cqil inspect --json`.',
      }),
  });
  return { root, onnxFile: path.join(root, source.onnxRelative), notes };
}

/** The maps of the original that recovery put other matrices in the place of. */
function refittedIn(recovered: Model, original: Model): RefittedMap[] {
  const producers = recovered.graph.producers();
  const { maps } = linearMaps(original, analyze(original));
  return maps.filter((map) => producers.get(map.output)?.name.startsWith(refitPrefix(map)));
}

function passOn(options: RewriteOptions) {
  return {
    ...(options.signal === undefined ? {} : { signal: options.signal }),
    ...(options.onProgress === undefined ? {} : { onProgress: options.onProgress }),
  };
}

/** @throws UsageError `OUTPUT_IS_SOURCE`, `OUTPUT_NOT_EMPTY` */
export function assertFree(root: string, source: ModelSource, force: boolean): Promise<void> {
  return assertFolderFree(root, source, force ? PLAN_FILE : undefined);
}

import { randomBytes } from 'node:crypto';
import { copyFile, mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import {
  CqilError,
  EnvironmentError,
  type OnProgress,
  type Plan,
  stringifyPlan,
  UsageError,
  VerificationError,
} from '@cqil/core';
import { analyze } from '../anatomy/index.js';
import { linearMaps } from '../linear/index.js';
import { type Model, readModel, writeModel } from '../onnx/index.js';
import { type RefittedMap, refitPrefix, setRefittedMaps } from '../recover/metadata.js';
import type { ModelSource } from '../source/index.js';
import { rewriteBranches } from './branches.js';
import { packExternalData } from './pack-external-data.js';

/** The name under which a rewritten folder holds its plan. */
export const PLAN_FILE = 'cqil.plan.json';

/** What is checked before the folder gets its name; the returned text says what is wrong, or nothing is. */
export type RewriteCheck = (rewritten: Model, signal: AbortSignal | undefined) => Promise<string | undefined>;

export interface RewriteOptions {
  /** Replaces what is in `outDir`, if that is a folder this function wrote. */
  readonly force?: boolean;
  /**
   * What `recover` made of the source: taken in its place, and the refitted maps are listed in the ONNX metadata under
   * `cqil.recovery`. Where the source has its weights in files of their own, they go there, too.
   */
  readonly recovered?: Model;
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
 * @throws UsageError `OUTPUT_NOT_EMPTY`, `OUTPUT_IS_SOURCE`; PlanError, AnatomyError, ModelFormatError;
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
  const { model, notes } = rewriteBranches(recovered ?? original, plan);
  const refitted = recovered === undefined ? [] : refittedIn(recovered, original);
  if (refitted.length > 0) {
    setRefittedMaps(model, refitted);
    packExternalData(model, original);
  }

  const staged = `${root}.${process.pid}-${randomBytes(4).toString('hex')}.tmp`;
  try {
    await mkdir(staged, { recursive: true });
    const file = path.join(staged, source.onnxRelative);
    await writeModel(model, file, passOn(options));
    await copySideFiles(source, staged, options.signal);
    await writeFile(path.join(staged, PLAN_FILE), stringifyPlan(plan));
    if (options.check !== undefined) {
      const wrong = await options.check(await readModel(file), options.signal);
      if (wrong !== undefined) {
        throw new VerificationError(
          'REWRITE_BROKEN',
          'The rewritten model failed its check and was not kept.',
          {
            expected: "the method's mathematics on the original weights",
            found: wrong,
            hint: 'This is a fault of this program; please report it with the output of `cqil inspect --json`.',
          },
        );
      }
    }
    options.signal?.throwIfAborted();
    await moveIntoPlace(staged, root);
  } catch (cause) {
    await rm(staged, { recursive: true, force: true });
    throw asWriteError(cause, root);
  }
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
export async function assertFree(root: string, source: ModelSource, force: boolean): Promise<void> {
  const relative = path.relative(root, source.onnxFile);
  if (!relative.startsWith('..') && !path.isAbsolute(relative)) {
    throw new UsageError('OUTPUT_IS_SOURCE', 'The output folder holds the model that is to be rewritten.', {
      expected: 'another folder',
      found: root,
    });
  }
  const entries = await readdir(root).catch((cause: NodeJS.ErrnoException) => {
    if (cause.code === 'ENOENT') return [] as string[];
    throw new UsageError('OUTPUT_NOT_EMPTY', `${root} is not a folder that can be written.`, {
      expected: 'a new or empty folder',
      found: cause.message,
      cause,
    });
  });
  if (entries.length === 0 || (force && entries.includes(PLAN_FILE))) return;
  throw new UsageError('OUTPUT_NOT_EMPTY', `${root} is not empty.`, {
    expected: force ? `a folder with a ${PLAN_FILE}, which may be replaced` : 'a new or empty folder',
    found: `${entries.length} entries, among them ${entries.slice(0, 3).join(', ')}`,
    hint: force ? 'Choose another folder.' : 'Choose another folder, or replace this one by force.',
  });
}

/** The folder that was there, empty or to be replaced, gives way only when the new one is complete. */
export async function moveIntoPlace(staged: string, root: string): Promise<void> {
  const old = `${staged}.old`;
  const there = await stat(root).then(
    () => true,
    () => false,
  );
  if (there) await rename(root, old);
  try {
    await rename(staged, root);
  } catch (cause) {
    if (there) await rename(old, root);
    throw cause;
  }
  await rm(old, { recursive: true, force: true });
}

async function copySideFiles(
  source: ModelSource,
  target: string,
  signal: AbortSignal | undefined,
): Promise<void> {
  for (const file of source.sideFiles) {
    signal?.throwIfAborted();
    if (file === PLAN_FILE) continue;
    const to = path.join(target, file);
    await mkdir(path.dirname(to), { recursive: true });
    if (file === 'config.json' && source.layout === 'transformers') await copyConfig(source, to);
    else await copyFile(path.join(source.root, file), to);
  }
}

/**
 * The new folder holds one graph of perhaps several, so its config names that one: Transformers.js then loads it
 * without being told its dtype. A config that says the right thing is copied as it is.
 */
async function copyConfig(source: ModelSource, to: string): Promise<void> {
  const bytes = await readFile(path.join(source.root, 'config.json'));
  const config = JSON.parse(bytes.toString('utf8')) as Record<string, unknown>;
  const own = asRecord(config['transformers.js_config']);
  const named = own.dtype;
  const right = named === undefined ? source.dtype === 'fp32' : named === source.dtype;
  if (right) {
    await writeFile(to, bytes);
    return;
  }
  config['transformers.js_config'] = { ...own, dtype: source.dtype };
  await writeFile(to, `${JSON.stringify(config, null, 2)}\n`);
}

function asRecord(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? (value as Record<string, unknown>)
    : {};
}

function asWriteError(cause: unknown, root: string): unknown {
  if (cause instanceof CqilError || !(cause instanceof Error) || !('syscall' in cause)) return cause;
  const { code } = cause as NodeJS.ErrnoException;
  return new EnvironmentError('WRITE_FAILED', `Could not write ${root}: ${cause.message}`, {
    hint: code === 'ENOSPC' ? 'Make room on the disk.' : 'Check that the folder can be written.',
    cause,
  });
}

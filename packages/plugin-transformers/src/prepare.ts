import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, posix, relative, sep } from 'node:path';
import {
  EnvironmentError,
  type OnProgress,
  type Plan,
  PlanError,
  parsePlan,
  stringifyPlan,
  UsageError,
} from '@cqil/core';
import {
  FileRange,
  type Model,
  type ModelSource,
  PLAN_METADATA_KEY,
  type RewriteCheck,
  readModel,
  rewriteCheck,
  rewriteModel,
} from '@cqil/planner';
import type { PretrainedModelOptions } from '@huggingface/transformers';
import { cacheKey } from './cache/key.js';
import { cacheFolders } from './cache/location.js';
import { type FileStamp, stampOf } from './cache/stamp.js';
import { findOrBuild } from './cache/store.js';
import { chooseGraph, type GraphChoice } from './graph-choice.js';
import type { HubRequest } from './hub-download.js';
import { type ModelFolder, type ModelPlace, pathFrom, placeOf } from './place.js';
import { resolvePlan } from './plan-input.js';
import { reportAs } from './progress.js';
import { bringGraph, notFound } from './source.js';
import type { CqilOptions, TransformersModule } from './types.js';

/**
 * Finds the plan, rewrites the model's graph once, and says how Transformers.js loads the result.
 *
 * Everything but the graph still comes from where it always came; the graph is found through `subfolder`,
 * which Transformers.js joins to the model's own place.
 *
 * @returns the options to load the model with: the user's own, where no plan is to be applied
 */
export async function prepare(
  transformers: TransformersModule,
  model: string | undefined,
  options: PretrainedModelOptions,
  cqil: CqilOptions,
): Promise<PretrainedModelOptions> {
  const planned = cqil.plan !== undefined && cqil.plan !== 'auto';
  if (model === undefined || model === null || model === '') {
    if (!planned) return options;
    throw new UsageError('MODEL_REQUIRED', 'A plan is made for one model, and no model is named.', {
      expected: 'a model folder or a model id beside the plan',
      found: 'none',
    });
  }
  const place = placeOf(transformers.env, model, options);
  const hub: HubRequest = {
    env: transformers.env,
    model,
    revision: options.revision ?? 'main',
    progress: options.progress_callback,
    signal: cqil.signal,
  };
  // A model that has been loaded before is asked for its plan here, not on the hub: no request a load.
  const fresh = !place.folders.some(({ dir }) => existsSync(join(dir, 'config.json')));
  const plan = await resolvePlan(cqil.plan, place, fresh ? hub : undefined);
  if (plan === undefined) return options;

  const config = await readConfig(transformers, model, options, place);
  const choice = await chooseGraph(transformers, model, config, options);
  const folder = await bringGraph(model, place, choice, hub);
  const source = await readModel(join(folder.dir, choice.graph));
  if (isPlanned(source, plan, planned)) return options;

  const entry = await rewritten(source, plan, choice, folder, cqil);
  const subfolder = pathFrom(folder, join(entry, dirname(choice.graph)));
  if (subfolder.includes(':')) throw otherDrive(folder.dir, entry);
  return {
    ...options,
    subfolder,
    // ONNX Runtime opens the planned graph's data by itself; its files need not be those of the original.
    use_external_data_format: false,
    ...(options.progress_callback
      ? {
          progress_callback: reportAs(
            options.progress_callback,
            `${subfolder}/${posix.basename(choice.graph)}`,
            choice,
          ),
        }
      : {}),
  };
}

async function readConfig(
  transformers: TransformersModule,
  model: string,
  options: PretrainedModelOptions,
  place: ModelPlace,
): Promise<NonNullable<PretrainedModelOptions['config']>> {
  const { cache_dir, local_files_only, revision, config } = options;
  try {
    return await transformers.AutoConfig.from_pretrained(model, {
      ...(config ? { config } : {}),
      ...(cache_dir ? { cache_dir } : {}),
      ...(local_files_only === undefined ? {} : { local_files_only }),
      ...(revision === undefined ? {} : { revision }),
    });
  } catch (cause) {
    if (!(cause instanceof Error) || cause.name !== 'ModelFileNotFoundError') throw cause;
    const looked = place.folders.map(({ dir }) => join(dir, 'config.json'));
    if (place.downloads !== undefined) looked.push(`${transformers.env.remoteHost}${model}`);
    throw notFound(model, looked.join(', '), cause);
  }
}

/**
 * Whether the graph has been rewritten by a plan before.
 *
 * @throws PlanError `MODEL_ALREADY_PLANNED` where the user asks for another one
 */
function isPlanned(source: Model, plan: Plan, asked: boolean): boolean {
  const own = source.metadata(PLAN_METADATA_KEY);
  if (own === undefined) return false;
  if (!asked || meaning(parsePlan(own)) === meaning(plan)) return true;
  throw new PlanError('MODEL_ALREADY_PLANNED', `${source.file} has been rewritten by another plan.`, {
    expected: 'the original graph, or the plan that it was rewritten by',
    found: meaning(parsePlan(own)),
    hint: 'give the folder of the original model, or load this one without a plan',
  });
}

function meaning({ version, layers, groups }: Plan): string {
  return stringifyPlan({ version, layers, groups });
}

async function rewritten(
  model: Model,
  plan: Plan,
  { graph, dtype }: GraphChoice,
  { dir }: ModelFolder,
  cqil: CqilOptions,
): Promise<string> {
  const files = await stampSources(model, dir, graph);
  const source: ModelSource = {
    root: dir,
    onnxFile: join(dir, graph),
    onnxRelative: graph,
    dtype,
    layout: 'transformers',
    available: [],
    // Configs and tokenizer are read from the model's own folder.
    sideFiles: [],
  };
  return findOrBuild({
    key: cacheKey({ plan, graph, dtype, files, planner: plannerVersion() }),
    folders: cacheFolders(dir, cqil.cacheDir),
    modelDir: dir,
    source: { graph, files },
    build: (folder) =>
      rewriteModel(source, plan, folder, {
        ...(cqil.verify === false ? {} : { check: reportedCheck(source, cqil.onProgress) }),
        ...(cqil.onProgress === undefined ? {} : { onProgress: cqil.onProgress }),
        ...(cqil.signal === undefined ? {} : { signal: cqil.signal }),
      }),
  });
}

/** The check takes longer than the rewriting, so whoever waits should know. */
function reportedCheck(source: ModelSource, onProgress: OnProgress | undefined): RewriteCheck {
  const check = rewriteCheck(source);
  return async (rewritten, signal) => {
    const report = (done: number) => onProgress?.({ phase: 'checking the rewritten graph', done, total: 1 });
    report(0);
    const wrong = await check(rewritten, signal);
    report(1);
    return wrong;
  };
}

/** The graph's file and those of its external data. */
async function stampSources(model: Model, dir: string, graph: string): Promise<FileStamp[]> {
  const paths = new Set([graph]);
  for (const { data } of model.graph.initializers.values()) {
    if (data instanceof FileRange) paths.add(relative(dir, data.file).split(sep).join('/'));
  }
  return Promise.all([...paths].sort().map((path) => stampOf(dir, path)));
}

function plannerVersion(): string {
  const manifest = createRequire(import.meta.url)('@cqil/planner/package.json') as { version: string };
  return manifest.version;
}

function otherDrive(model: string, cache: string): EnvironmentError {
  return new EnvironmentError('CACHE_NOT_REACHABLE', 'The rewritten graph is on another drive.', {
    expected: `a folder on the drive of ${model}`,
    found: cache,
    hint: "set the option `cacheDir` to a folder on the model's drive",
  });
}

import { readdir, readFile, stat } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { type Plan, parsePlan, sequentialSteps, UsageError } from '@cqil/core';
import type { TextModel } from '../model.js';
import type { ModelSource } from '../serving/served.js';
import { type LocalTextModel, openTextModel, type TextModelOptions, textModelMemory } from './open.js';

/** What a rewritten model carries beside its graph. */
const PLAN_FILE = 'cqil.plan.json';

export interface ModelFolderOptions extends Omit<TextModelOptions, 'graph'> {
  /** Looks beside the folder for models that were made of this one by a plan; `true` when absent. */
  readonly variants?: boolean;
  /** Opens the model at once, not when it is first asked for; its variants wait. */
  readonly eager?: boolean;
}

export interface FolderSource extends ModelSource {
  readonly folder: string;
  /** Steps in sequence of the plan that the model was rewritten by; absent where it was not. */
  readonly steps?: number;
}

/** A model and its variants, each opened when it is first asked for. */
export interface ModelFolder extends AsyncDisposable {
  /** The model itself first, then its variants from the most steps to the fewest. */
  readonly sources: readonly FolderSource[];
  /** Frees what has been opened. */
  dispose(): Promise<void>;
}

/**
 * Finds a model and its variants: folders beside it that `cqil rewrite` or `cqil optimize` has made of it. A variant
 * is named by its steps, `smollm2:22-steps`; where two have as many, by their folders, `smollm2:smollm2-wide`.
 *
 * @example
 * await using folder = await openModelFolder('./models/smollm2');
 * const handler = createOpenAIHandler({ models: folder.sources });
 */
export async function openModelFolder(path: string, options: ModelFolderOptions = {}): Promise<ModelFolder> {
  const root = resolve(path);
  const id = options.id ?? basename(root);
  const own = await readPlan(root);
  const variants = options.variants === false || own !== undefined ? [] : await variantsOf(root);
  const opened = new Set<Promise<LocalTextModel>>();
  const openings = new WeakMap<TextModel, Promise<LocalTextModel>>();
  let disposed = false;

  const source = async (name: string, folder: string, plan: Plan | undefined): Promise<FolderSource> => ({
    id: name,
    folder,
    created: await changed(folder),
    ...(options.eager === true && folder === root ? { eager: true } : {}),
    ...(plan === undefined ? {} : { steps: sequentialSteps(plan) }),
    memory: () => textModelMemory(folder, options),
    async open() {
      // What is opened now nobody would free.
      if (disposed) throw gone(folder);
      const { variants: _, eager: __, ...rest } = options;
      const opening = openTextModel(folder, { ...rest, id: name });
      opened.add(opening);
      try {
        const model = await opening;
        if (disposed) throw gone(folder);
        openings.set(model, opening);
        return model;
      } catch (cause) {
        opened.delete(opening);
        throw cause;
      }
    },
    async close(model) {
      const opening = openings.get(model);
      await (await opening)?.dispose();
      if (opening !== undefined) opened.delete(opening);
    },
  });
  const counts = variants.map(({ plan }) => sequentialSteps(plan));
  const sources = [
    await source(id, root, own),
    ...(await Promise.all(
      variants.map(({ folder, plan }, i) => {
        const alone = counts.filter((steps) => steps === counts[i]).length === 1;
        return source(`${id}:${alone ? `${counts[i]}-steps` : basename(folder)}`, folder, plan);
      }),
    )),
  ];
  const dispose = async () => {
    disposed = true;
    await Promise.all(
      Array.from(opened, (opening) => opening.then((model) => model.dispose()).catch(() => {})),
    );
    opened.clear();
  };
  return { sources, dispose, [Symbol.asyncDispose]: dispose };
}

function gone(folder: string): UsageError {
  return new UsageError('MODEL_DISPOSED', `The models of ${folder} have been disposed of.`, {
    hint: 'open the folder again',
  });
}

interface Variant {
  readonly folder: string;
  readonly plan: Plan;
}

async function variantsOf(root: string): Promise<Variant[]> {
  const around = dirname(root);
  const [tokenizer, config] = await Promise.all([read(join(root, 'tokenizer.json')), readConfig(root)]);
  if (tokenizer === undefined || config === undefined) return [];
  const entries = await readdir(around, { withFileTypes: true }).catch(() => []);
  const found: Variant[] = [];
  for (const { name } of entries.sort((a, b) => (a.name < b.name ? -1 : 1))) {
    const folder = join(around, name);
    if (folder === root) continue;
    const plan = await readPlan(folder);
    if (plan === undefined || plan.layers !== config.layers) continue;
    const theirs = await readConfig(folder);
    // Other models may lie beside it, with plans of their own.
    if (theirs?.width !== config.width || (await read(join(folder, 'tokenizer.json'))) !== tokenizer)
      continue;
    found.push({ folder, plan });
  }
  return found.sort((a, b) => sequentialSteps(b.plan) - sequentialSteps(a.plan));
}

/** The plan that a folder's model was rewritten by; one without groups leaves a model as it was. */
async function readPlan(folder: string): Promise<Plan | undefined> {
  const text = await read(join(folder, PLAN_FILE));
  if (text === undefined) return undefined;
  try {
    const plan = parsePlan(JSON.parse(text));
    return plan.groups.length === 0 ? undefined : plan;
  } catch {
    // A folder that is being written, or something else.
    return undefined;
  }
}

async function readConfig(folder: string): Promise<{ layers: unknown; width: unknown } | undefined> {
  try {
    const config = JSON.parse((await read(join(folder, 'config.json'))) ?? '') as Record<string, unknown>;
    return {
      layers: config.num_hidden_layers ?? config.n_layer ?? config.num_layers,
      width: config.hidden_size ?? config.n_embd ?? config.d_model,
    };
  } catch {
    return undefined;
  }
}

async function read(file: string): Promise<string | undefined> {
  return readFile(file, 'utf8').catch(() => undefined);
}

/** Seconds since 1970. */
async function changed(folder: string): Promise<number> {
  const { mtimeMs } = await stat(folder).catch(() => ({ mtimeMs: 0 }));
  return Math.floor(mtimeMs / 1000);
}

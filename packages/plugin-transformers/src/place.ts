import { realpathSync } from 'node:fs';
import { join, relative, resolve, sep } from 'node:path';
import type { PretrainedModelOptions } from '@huggingface/transformers';
import type { TransformersModule } from './types.js';

/** A folder in which Transformers.js looks for a model's files. */
export interface ModelFolder {
  readonly dir: string;
  /**
   * How Transformers.js reaches other folders from this one by `..`: in its own file cache by joining names
   * (links do not count), elsewhere by the file system (links are followed first).
   */
  readonly joins: 'names' | 'files';
}

/** Where the files of a model may be, in the order in which Transformers.js looks. */
export interface ModelPlace {
  /** `path`: a folder that the user named. `id`: a model id, looked for in folders and on the hub. */
  readonly kind: 'id' | 'path';
  readonly folders: readonly ModelFolder[];
  /** Where a download of a model id goes; absent where Transformers.js keeps no files or may not download. */
  readonly downloads?: ModelFolder;
  /** The model may be on a hub, but there is no file cache to download it to. */
  readonly uncached?: true;
}

type Environment = TransformersModule['env'];
type PlaceOptions = Pick<PretrainedModelOptions, 'cache_dir' | 'local_files_only' | 'revision'>;

/** What Transformers.js takes for a model id; everything else is a path (its rule, and that of the hub). */
export function isModelId(name: string): boolean {
  return (
    /^(\b[\w\-.]+\b\/)?\b[\w\-.]{1,96}\b$/.test(name) &&
    !name.includes('..') &&
    !name.includes('--') &&
    !name.endsWith('.git') &&
    !name.endsWith('.ipynb')
  );
}

export function placeOf(env: Environment, model: string, options: PlaceOptions): ModelPlace {
  if (!isModelId(model)) return { kind: 'path', folders: [{ dir: resolve(model), joins: 'files' }] };

  const folders: ModelFolder[] = [];
  const cacheRoot = fileCacheRoot(env, options);
  const revision = options.revision ?? 'main';
  const cached: ModelFolder | undefined =
    cacheRoot === undefined
      ? undefined
      : // Its cache keeps the revision `main` in the model's folder itself, others in a folder by their name.
        { dir: join(cacheRoot, model, revision === 'main' ? '' : revision), joins: 'names' };
  if (cached !== undefined) folders.push(cached);
  if (env.allowLocalModels) folders.push({ dir: resolve(env.localModelPath, model), joins: 'files' });

  if (!env.allowRemoteModels || options.local_files_only === true) return { kind: 'id', folders };
  return { kind: 'id', folders, ...(cached === undefined ? { uncached: true } : { downloads: cached }) };
}

/** Transformers.js's cache of files; `undefined` where the user has turned it off or put another in its place. */
function fileCacheRoot(env: Environment, options: PlaceOptions): string | undefined {
  if (!env.useFSCache || env.useCustomCache || env.useBrowserCache) return undefined;
  const root = options.cache_dir ?? env.cacheDir;
  return root === null || root === undefined ? undefined : resolve(root);
}

/** The path from `folder` to `target` that Transformers.js follows to it, with forward slashes. */
export function pathFrom(folder: ModelFolder, target: string): string {
  const [from, to] =
    folder.joins === 'names' ? [folder.dir, target] : [realpathSync(folder.dir), realpathSync(target)];
  return relative(from, to).split(sep).join('/');
}

import { createHash } from 'node:crypto';
import { realpathSync } from 'node:fs';
import { access, constants, mkdir } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';

/** The folder beside a model that holds its rewritten graphs. */
export const BESIDE = '.cqil';

/**
 * Where rewritten graphs of the model in `modelDir` may be, best first: the folder that the user names, or
 * else beside the model and in the user's cache folder.
 */
export function cacheFolders(modelDir: string, cacheDir?: string): readonly string[] {
  if (cacheDir !== undefined) return [resolve(cacheDir, modelName(modelDir))];
  return [join(modelDir, BESIDE), join(userCacheFolder(), 'transformers', modelName(modelDir))];
}

/** Tells models of the same name in different folders apart. */
function modelName(modelDir: string): string {
  return createHash('sha256').update(realpathSync(modelDir)).digest('hex').slice(0, 16);
}

/** The user's folder for caches, as each system has it. */
export function userCacheFolder(env: NodeJS.ProcessEnv = process.env, platform = process.platform): string {
  const own = env.XDG_CACHE_HOME;
  if (own !== undefined && own !== '') return join(own, 'cqil');
  if (platform === 'win32') return join(env.LOCALAPPDATA ?? join(homedir(), 'AppData', 'Local'), 'cqil');
  if (platform === 'darwin') return join(homedir(), 'Library', 'Caches', 'cqil');
  return join(homedir(), '.cache', 'cqil');
}

const REFUSALS = new Set(['EACCES', 'EPERM', 'EROFS', 'EEXIST', 'ENOTDIR']);

/** Makes the folder if it can be made and written; `false` where the system refuses that. */
export async function canWrite(folder: string): Promise<boolean> {
  try {
    await mkdir(folder, { recursive: true });
    await access(folder, constants.W_OK);
    return true;
  } catch (cause) {
    if (REFUSALS.has((cause as NodeJS.ErrnoException).code ?? '')) return false;
    throw cause;
  }
}

import { lstat, open, readdir, readFile, realpath, stat } from 'node:fs/promises';
import { dirname, join, relative, sep } from 'node:path';
import { ModelFormatError } from '@cqil/core';

/** Whether `path` is an existing file (`'file'`), folder (`'folder'`) or neither; links are followed. */
export async function kindOf(path: string): Promise<'file' | 'folder' | undefined> {
  try {
    const found = await stat(path);
    return found.isDirectory() ? 'folder' : found.isFile() ? 'file' : undefined;
  } catch {
    return undefined;
  }
}

/** Whether there is a link at `path` whose target is gone, as an interrupted cache download leaves. */
export async function isDanglingLink(path: string): Promise<boolean> {
  try {
    return (await lstat(path)).isSymbolicLink() && (await kindOf(path)) === undefined;
  } catch {
    return false;
  }
}

/** The parsed JSON of `file`, or `undefined` when it is not there. */
export async function readJsonIfThere(file: string): Promise<unknown> {
  if ((await kindOf(file)) !== 'file') return undefined;
  const text = await readFile(file, 'utf8');
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new ModelFormatError('MODEL_CONFIG_INVALID', `${file} is not valid JSON.`, {
      expected: 'a JSON document',
      found: cause instanceof Error ? cause.message : String(cause),
      hint: 'fetch the file again, or repair it',
      cause,
    });
  }
}

export async function firstBytes(file: string, count: number): Promise<Uint8Array> {
  const handle = await open(file, 'r');
  try {
    const buffer = new Uint8Array(count);
    const { bytesRead } = await handle.read(buffer, 0, count, 0);
    return buffer.subarray(0, bytesRead);
  } finally {
    await handle.close();
  }
}

/** `file` relative to `root`, with forward slashes on every system. */
export function posixRelative(root: string, file: string): string {
  return relative(root, file).split(sep).join('/');
}

/** Weights of some graph or checkpoint, told by the name. */
const WEIGHTS =
  /\.(onnx|ort|gguf|ggml|safetensors|pt|pth|ckpt|h5|msgpack|tflite|mlmodel|npz)$|\.onnx[._]data(_\d+)?$|\.onnx\.part$|^(pytorch_model|tf_model|flax_model|training_args|optimizer)\b.*\.(bin|h5|msgpack)$|^[^.]*\.(data|weights)$|\.(safetensors|bin)\.index\.json$/i;

export function isWeights(fileName: string): boolean {
  return WEIGHTS.test(fileName);
}

/** Depth below the model's folder at which we stop looking; a model's own files are one or two folders deep. */
const MAX_DEPTH = 4;

/**
 * What belongs to a model beside its weights: all files below `root` that are neither hidden nor weights.
 *
 * @returns paths relative to `root`, forward slashes, sorted
 */
export async function listSideFiles(root: string): Promise<string[]> {
  const found: string[] = [];
  const seen = new Set<string>();
  const walk = async (folder: string, depth: number): Promise<void> => {
    const real = await realpath(folder);
    if (seen.has(real) || depth > MAX_DEPTH) return;
    seen.add(real);
    for (const name of await readdir(folder)) {
      if (name.startsWith('.') || name === 'node_modules' || name === '__pycache__') continue;
      const path = join(folder, name);
      const kind = await kindOf(path);
      if (kind === 'folder') await walk(path, depth + 1);
      else if (kind === 'file' && !isWeights(name)) found.push(posixRelative(root, path));
    }
  };
  await walk(root, 0);
  return found.sort();
}

/**
 * The folders in which a graph's external data may really lie: the model's folder and the graph's own, as
 * named, with links resolved, and the folder in which the graph's link ends (a hub cache keeps `blobs/` beside
 * `snapshots/<revision>/`, and each file of a snapshot is a link there).
 *
 * @param onnxFile the graph, as the user named it
 * @param root the model's folder, when it is not the graph's own
 * @returns absolute folders without duplicates
 */
export async function modelFolderRoots(onnxFile: string, root?: string): Promise<string[]> {
  const own = dirname(onnxFile);
  const folders = [own, await realpath(own), dirname(await realpath(onnxFile))];
  if (root !== undefined) folders.push(root, await realpath(root));
  return [...new Set(folders)];
}

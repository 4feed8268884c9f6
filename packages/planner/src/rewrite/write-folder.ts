import { randomBytes } from 'node:crypto';
import { copyFile, mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { CqilError, EnvironmentError, type OnProgress, UsageError, type VerificationError } from '@cqil/core';
import { type Model, readModel, writeModel } from '../onnx/index.js';
import type { ModelSource } from '../source/index.js';

/** What is checked before the folder gets its name; the returned text says what is wrong, or nothing is. */
export type FolderCheck = (written: Model, signal: AbortSignal | undefined) => Promise<string | undefined>;

export interface FolderOptions {
  /** What the folder says about itself: written beside the model, in the place of one that the source has. */
  readonly document: { readonly file: string; readonly text: string };
  /** Side files that are to hold something else than the source's, by their names. */
  readonly changed?: ReadonlyMap<string, string>;
  readonly check?: FolderCheck;
  /** The error for what `check` found. */
  readonly broken: (found: string) => VerificationError;
  readonly signal?: AbortSignal;
  readonly onProgress?: OnProgress;
}

/**
 * Writes a model that was made of a model on disk into a folder laid out as the source is: the graph and its data under
 * their old names, and all side files. The folder appears at once, complete and checked, or not at all.
 *
 * @throws ModelFormatError; what `broken` makes; EnvironmentError `WRITE_FAILED`; the signal's reason
 */
export async function writeModelFolder(
  source: ModelSource,
  model: Model,
  root: string,
  options: FolderOptions,
): Promise<void> {
  const { document, signal, onProgress } = options;
  const staged = `${root}.${process.pid}-${randomBytes(4).toString('hex')}.tmp`;
  try {
    await mkdir(staged, { recursive: true });
    const file = path.join(staged, source.onnxRelative);
    await writeModel(model, file, {
      ...(signal === undefined ? {} : { signal }),
      ...(onProgress === undefined ? {} : { onProgress }),
    });
    await copySideFiles(source, staged, new Set([document.file]), signal);
    await writeFile(path.join(staged, document.file), document.text);
    for (const [name, text] of options.changed ?? []) await writeFile(path.join(staged, name), text);
    if (options.check !== undefined) {
      const wrong = await options.check(await readModel(file), signal);
      if (wrong !== undefined) throw options.broken(wrong);
    }
    signal?.throwIfAborted();
    await moveIntoPlace(staged, root);
  } catch (cause) {
    await rm(staged, { recursive: true, force: true });
    throw asWriteError(cause, root);
  }
}

/**
 * @param replaceable a folder with this file in it may be replaced; none when absent
 * @throws UsageError `OUTPUT_IS_SOURCE`, `OUTPUT_NOT_EMPTY`
 */
export async function assertFree(
  root: string,
  source: ModelSource,
  replaceable: string | undefined,
): Promise<void> {
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
  const force = replaceable !== undefined;
  if (entries.length === 0 || (force && entries.includes(replaceable))) return;
  throw new UsageError('OUTPUT_NOT_EMPTY', `${root} is not empty.`, {
    expected: force ? `a folder with a ${replaceable}, which may be replaced` : 'a new or empty folder',
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

/** Copies what belongs to a model beside its graph, config and tokenizer among it. */
export async function copySideFiles(
  source: ModelSource,
  target: string,
  leftOut: ReadonlySet<string>,
  signal: AbortSignal | undefined,
): Promise<void> {
  for (const file of source.sideFiles) {
    signal?.throwIfAborted();
    if (leftOut.has(file)) continue;
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

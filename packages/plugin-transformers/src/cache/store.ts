import { randomBytes } from 'node:crypto';
import { mkdir, readdir, rename, rm, rmdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { EnvironmentError } from '@cqil/core';
import { isIntact, readManifest, sealEntry } from './entry.js';
import { canWrite } from './location.js';
import { type FileStamp, stampsHold } from './stamp.js';

export interface EntryRequest {
  readonly key: string;
  /** Where entries may be, best first. */
  readonly folders: readonly string[];
  /** The model's folder, and the files in it from which the entry is made. */
  readonly modelDir: string;
  readonly source: { readonly graph: string; readonly files: readonly FileStamp[] };
  /** Writes the entry's files into an empty folder. */
  readonly build: (folder: string) => Promise<unknown>;
}

/** A folder in which somebody builds; its name tells it from entries. */
const BUILDING = '.build-';
/** After this a folder in which somebody built is a crash's remains, in milliseconds. */
const ABANDONED = 24 * 60 * 60 * 1000;

const underWay = new Map<string, Promise<string>>();

/**
 * Finds or makes a cache entry.
 *
 * An entry is built under another name and then renamed, so that a reader sees a whole one or none. Processes
 * that build the same entry at the same time do not wait for each other: the bytes are the same, and the
 * first to finish is kept. An entry that is not as it was written is replaced.
 *
 * @returns the entry's folder
 * @throws EnvironmentError `CACHE_NOT_WRITABLE`
 */
export async function findOrBuild(request: EntryRequest): Promise<string> {
  for (const folder of request.folders) {
    const entry = join(folder, request.key);
    if (await isIntact(entry, request.key)) return entry;
  }
  const id = JSON.stringify([request.folders, request.key]);
  let work = underWay.get(id);
  if (work === undefined) {
    work = build(request).finally(() => underWay.delete(id));
    underWay.set(id, work);
  }
  return work;
}

async function build(request: EntryRequest): Promise<string> {
  const folder = await firstWritable(request.folders);
  await removeRemains(folder, request);
  const name = `${BUILDING}${request.key}-${process.pid}-${randomBytes(4).toString('hex')}`;
  const temporary = join(folder, name);
  try {
    await mkdir(temporary, { recursive: true });
    await request.build(temporary);
    await sealEntry(temporary, request.key, request.source);
    return await publish(temporary, join(folder, request.key), request.key);
  } finally {
    await rm(temporary, { recursive: true, force: true });
    // Gone where nothing was built and nothing else is there: a refused plan leaves no trace.
    await rmdir(folder).catch(() => {});
  }
}

async function firstWritable(folders: readonly string[]): Promise<string> {
  for (const folder of folders) if (await canWrite(folder)) return folder;
  throw new EnvironmentError('CACHE_NOT_WRITABLE', 'There is no place for the rewritten graph.', {
    expected: 'a folder that can be written',
    found: folders.join(', '),
    hint: 'name a folder by the option `cacheDir`, or rewrite the model once with `cqil rewrite`',
  });
}

/** Gives what was built its name, unless another process was faster. */
async function publish(temporary: string, entry: string, key: string): Promise<string> {
  for (let attempt = 0; ; attempt++) {
    try {
      await rename(temporary, entry);
      return entry;
    } catch (cause) {
      const code = (cause as NodeJS.ErrnoException).code ?? '';
      if (!['ENOTEMPTY', 'EEXIST', 'EPERM', 'ENOTDIR'].includes(code) || attempt === 3) throw cause;
      if (await isIntact(entry, key)) return entry;
      // What bears the name is damaged. Renaming it away is atomic; removing it in place would not be.
      const away = `${temporary}-damaged-${attempt}`;
      try {
        await rename(entry, away);
      } catch (gone) {
        if ((gone as NodeJS.ErrnoException).code !== 'ENOENT') throw gone;
      }
      await rm(away, { recursive: true, force: true });
    }
  }
}

/** Removes entries of the same graph in an older state, and what crashed builds left. */
async function removeRemains(folder: string, { modelDir, source }: EntryRequest): Promise<void> {
  for (const name of await readdir(folder)) {
    const path = join(folder, name);
    if (name.startsWith(BUILDING)) {
      const { mtimeMs } = await stat(path).catch(() => ({ mtimeMs: Date.now() }));
      if (Date.now() - mtimeMs > ABANDONED) await rm(path, { recursive: true, force: true });
      continue;
    }
    const manifest = await readManifest(path);
    if (manifest === undefined || manifest.source.graph !== source.graph) continue;
    if (!(await stampsHold(modelDir, manifest.source.files))) {
      await rm(path, { recursive: true, force: true });
    }
  }
}

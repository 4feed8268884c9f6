import { copyFile, mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { OnProgress } from '@cqil/core';
import type { DtypeChoice } from '../dtype.js';
import { kindOf, readJsonIfThere } from '../files.js';
import { hashFile, startHash } from './digest.js';
import { download } from './download.js';
import { type Repository, type RepositoryFile, readRepository, selectFiles } from './repository.js';
import { hubFetch } from './request.js';
import type { HubSettings } from './settings.js';

export interface FetchRepositoryOptions {
  readonly revision?: string | undefined;
  readonly dtype?: DtypeChoice | undefined;
  readonly settings: HubSettings;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: OnProgress | undefined;
}

/** Says which commit the files of an unfinished download belong to. */
const STAGING_NOTE = '.fetch.json';

/**
 * Brings one model of a hub's repository into the folder `out`, which appears only when all its files are
 * there and right. Until then they are in `<out>.part`, from where the next call goes on.
 *
 * @returns the commit that `revision` stood for
 */
export async function fetchRepository(
  id: string,
  out: string,
  options: FetchRepositoryOptions,
): Promise<{ commit: string; files: string[] }> {
  const { settings, signal } = options;
  const repository = await readRepository(id, options.revision ?? 'main', settings, signal);
  const staging = `${out}.part`;
  await openStaging(staging, repository);
  try {
    const config = repository.files.find(({ path }) => path === 'config.json');
    if (config !== undefined) await bring(repository, config, staging, options, () => {});
    const files = selectFiles(repository, await readJsonIfThere(join(staging, 'config.json')), options.dtype);
    const total = files.reduce((sum, { size }) => sum + size, 0);
    let before = 0;
    for (const file of files) {
      await bring(repository, file, staging, options, (bytes) => {
        const done = before + Math.min(bytes, file.size);
        options.onProgress?.({ phase: 'downloading', done, total, unit: 'bytes' });
      });
      before += file.size;
    }
    await rm(join(staging, STAGING_NOTE));
    await mkdir(dirname(out), { recursive: true });
    // An empty folder may be in the place; anything else was refused before.
    await rm(out, { recursive: true, force: true });
    await rename(staging, out);
    return { commit: repository.commit, files: files.map(({ path }) => path).sort() };
  } catch (error) {
    // What was refused outright leaves nothing worth going on from.
    if (!(await hasBytes(staging, repository))) await rm(staging, { recursive: true, force: true });
    throw error;
  }
}

/** An unfinished download is only gone on with for the same repository at the same commit. */
async function openStaging(staging: string, { id, commit }: Repository): Promise<void> {
  const note = join(staging, STAGING_NOTE);
  const mark = JSON.stringify({ id, commit });
  const found = (await kindOf(note)) === 'file' ? await readFile(note, 'utf8') : undefined;
  if (found === mark) return;
  await rm(staging, { recursive: true, force: true });
  await mkdir(staging, { recursive: true });
  await writeFile(note, mark);
}

async function hasBytes(staging: string, { files }: Repository): Promise<boolean> {
  for (const { path } of files) {
    if (path === 'config.json') continue;
    if ((await kindOf(join(staging, path))) ?? (await kindOf(join(staging, `${path}.part`)))) return true;
  }
  return false;
}

async function bring(
  repository: Repository,
  file: RepositoryFile,
  staging: string,
  { settings, signal }: FetchRepositoryOptions,
  onBytes: (bytes: number) => void,
): Promise<void> {
  const target = join(staging, file.path);
  if (
    (await kindOf(target)) === 'file' ||
    (await takeFromCache(repository, file, target, settings, signal))
  ) {
    onBytes(file.size);
    return;
  }
  await download({
    url: repository.url(file.path),
    target,
    size: file.size,
    digest: file.digest,
    fetch: hubFetch(settings),
    signal,
    onBytes,
  });
}

/** Copies a file that the hub's own tools already keep in their cache, if it is whole. */
async function takeFromCache(
  { id }: Repository,
  { digest, size }: RepositoryFile,
  target: string,
  { cache }: HubSettings,
  signal: AbortSignal | undefined,
): Promise<boolean> {
  if (digest === undefined) return false;
  const blob = join(cache, `models--${id.replaceAll('/', '--')}`, 'blobs', digest.hex);
  if ((await kindOf(blob)) !== 'file') return false;
  const hash = await hashFile(startHash(digest, size), blob, signal);
  if (hash.digest('hex') !== digest.hex) return false;
  await mkdir(dirname(target), { recursive: true });
  await copyFile(blob, `${target}.copy`);
  await rename(`${target}.copy`, target);
  return true;
}

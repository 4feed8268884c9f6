import { randomBytes } from 'node:crypto';
import { mkdir, readdir, readFile, rename, rm, rmdir } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { EnvironmentError, UsageError } from '@cqil/core';

/**
 * Makes a folder under a temporary name beside the final one, and puts it in place when it is complete. A
 * folder that is there already keeps what is not replaced.
 *
 * @param make writes the files into the folder it is given
 * @throws UsageError `OUTPUT_NOT_EMPTY` for a folder with other contents, unless `force` is set
 * @throws EnvironmentError `WRITE_FAILED` when the disk does not take it
 */
export async function writeFolder(
  outDir: string,
  source: string,
  force: boolean,
  make: (temporary: string) => Promise<void>,
): Promise<void> {
  const target = resolve(outDir);
  const occupied = await isOccupied(target);
  if (occupied && !force && !(await isImportOf(target, source))) {
    throw new UsageError('OUTPUT_NOT_EMPTY', `${outDir} is not empty.`, {
      expected: `a new or empty folder, or one made from ${source} before`,
      hint: 'Choose another folder, or force the import to replace files of the same names.',
    });
  }
  const temporary = `${target}.${process.pid}-${randomBytes(4).toString('hex')}.tmp`;
  try {
    await mkdir(dirname(target), { recursive: true });
    await mkdir(temporary);
    await make(temporary);
    if (occupied) {
      await moveFiles(temporary, target);
    } else {
      await rmdir(target).catch(ignoreMissing);
      await rename(temporary, target);
    }
  } catch (cause) {
    if (isSystemError(cause)) {
      throw new EnvironmentError('WRITE_FAILED', `Could not write ${outDir}: ${cause.message}`, {
        hint: cause.code === 'ENOSPC' ? 'Make room on the disk.' : 'Check that the folder can be written.',
        cause,
      });
    }
    throw cause;
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
}

async function isOccupied(folder: string): Promise<boolean> {
  try {
    return (await readdir(folder)).length > 0;
  } catch (cause) {
    if (isSystemError(cause) && cause.code === 'ENOENT') return false;
    if (isSystemError(cause) && cause.code === 'ENOTDIR') {
      throw new UsageError('OUTPUT_NOT_A_FOLDER', `${folder} is a file.`, {
        expected: 'a folder, or a path where one can be made',
        hint: 'Choose another place for the model.',
      });
    }
    throw cause;
  }
}

async function isImportOf(folder: string, source: string): Promise<boolean> {
  try {
    const config: unknown = JSON.parse(await readFile(join(folder, 'config.json'), 'utf8'));
    if (typeof config !== 'object' || config === null || !('cqil_import' in config)) return false;
    const record = config.cqil_import;
    return typeof record === 'object' && record !== null && 'source' in record && record.source === source;
  } catch {
    return false;
  }
}

/** Large files first, `config.json` last: it is what makes the folder a model. */
async function moveFiles(from: string, to: string): Promise<void> {
  const entries = await readdir(from, { recursive: true, withFileTypes: true });
  const files = entries
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(from.length + 1));
  files.sort((a, b) => Number(a === 'config.json') - Number(b === 'config.json') || (a < b ? -1 : 1));
  for (const file of files) {
    await mkdir(dirname(join(to, file)), { recursive: true });
    await rename(join(from, file), join(to, file));
  }
}

function ignoreMissing(cause: unknown): void {
  if (!isSystemError(cause) || cause.code !== 'ENOENT') throw cause;
}

function isSystemError(cause: unknown): cause is NodeJS.ErrnoException {
  return cause instanceof Error && 'syscall' in cause && 'code' in cause;
}

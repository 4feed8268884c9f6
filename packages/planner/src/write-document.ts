import { randomBytes } from 'node:crypto';
import { rename, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { EnvironmentError } from '@cqil/core';

/**
 * Writes a text file under a temporary name that becomes the final one when everything is there.
 *
 * @throws EnvironmentError `WRITE_FAILED`
 */
export async function writeDocument(file: string, text: string): Promise<void> {
  const target = path.resolve(file);
  const temporary = `${target}.${process.pid}-${randomBytes(4).toString('hex')}.tmp`;
  try {
    await writeFile(temporary, text, { flag: 'wx' });
    await rename(temporary, target);
  } catch (cause) {
    await rm(temporary, { force: true });
    if (!(cause instanceof Error && 'syscall' in cause)) throw cause;
    throw new EnvironmentError('WRITE_FAILED', `Could not write ${target}: ${cause.message}`, {
      hint: 'Check that the folder exists and can be written.',
      cause,
    });
  }
}

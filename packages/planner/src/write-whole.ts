import { randomBytes } from 'node:crypto';
import { type FileHandle, open, rename, rm } from 'node:fs/promises';
import path from 'node:path';
import { EnvironmentError } from '@cqil/core';

/**
 * Writes a file under another name, which becomes its own when everything is there and on the disk.
 *
 * @throws what `write` and the file system throw; nothing is left then
 */
export async function appear(file: string, write: (handle: FileHandle) => Promise<void>): Promise<void> {
  const temporary = `${file}.${process.pid}-${randomBytes(4).toString('hex')}.tmp`;
  try {
    const handle = await open(temporary, 'wx');
    try {
      await write(handle);
      // Should the machine go down, then the name does not come before what it names.
      await handle.datasync();
    } finally {
      await handle.close();
    }
    await rename(temporary, file);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}

/** `appear` with all of the content at once. */
export function writeWhole(file: string, content: string | Uint8Array): Promise<void> {
  return appear(file, (handle) => handle.writeFile(content));
}

/**
 * Writes a text that a user asked for.
 *
 * @throws EnvironmentError `WRITE_FAILED`
 */
export async function writeDocument(file: string, text: string): Promise<void> {
  const target = path.resolve(file);
  try {
    await writeWhole(target, text);
  } catch (cause) {
    if (!(cause instanceof Error && 'syscall' in cause)) throw cause;
    throw new EnvironmentError('WRITE_FAILED', `Could not write ${target}: ${cause.message}`, {
      hint: 'Check that the folder exists and can be written.',
      cause,
    });
  }
}

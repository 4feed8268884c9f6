import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';

export const fileStampSchema = z.strictObject({
  /** Relative to its folder, with forward slashes. */
  path: z.string(),
  /** In bytes. */
  size: z.number().int().nonnegative(),
  /** Time of the last change in nanoseconds since 1970; a string, as JSON's numbers cannot hold it. */
  changed: z.string(),
});

/** What tells a file from an earlier state of itself without reading it. */
export type FileStamp = z.infer<typeof fileStampSchema>;

export async function stampOf(folder: string, path: string): Promise<FileStamp> {
  const { size, mtimeNs } = await stat(join(folder, path), { bigint: true });
  return { path, size: Number(size), changed: mtimeNs.toString() };
}

/** Whether every file is there and as it was. */
export async function stampsHold(folder: string, stamps: readonly FileStamp[]): Promise<boolean> {
  for (const stamp of stamps) {
    try {
      const now = await stampOf(folder, stamp.path);
      if (now.size !== stamp.size || now.changed !== stamp.changed) return false;
    } catch {
      return false;
    }
  }
  return true;
}

import { open, readdir, readFile } from 'node:fs/promises';
import { join, relative, sep } from 'node:path';
import { z } from 'zod';
import { type FileStamp, fileStampSchema, stampOf, stampsHold } from './stamp.js';

const MANIFEST = 'entry.json';

const manifestSchema = z.strictObject({
  key: z.string(),
  source: z.strictObject({ graph: z.string(), files: z.array(fileStampSchema) }),
  files: z.array(fileStampSchema),
});

/** What a cache entry says about itself: made from which files, and which files it has. */
export type Manifest = z.infer<typeof manifestSchema>;

/** Reads an entry's manifest; `undefined` where there is none that can be read. */
export async function readManifest(folder: string): Promise<Manifest | undefined> {
  try {
    return manifestSchema.parse(JSON.parse(await readFile(join(folder, MANIFEST), 'utf8')));
  } catch {
    return undefined;
  }
}

/** Whether the folder holds the entry `key`, complete and as it was written. */
export async function isIntact(folder: string, key: string): Promise<boolean> {
  const manifest = await readManifest(folder);
  return manifest?.key === key && manifest.files.length > 0 && (await stampsHold(folder, manifest.files));
}

/**
 * Completes the entry in `folder`: brings its files to the disk, so that no crash can leave an entry that
 * looks whole, and writes the manifest, without which a folder is no entry.
 */
export async function sealEntry(
  folder: string,
  key: string,
  source: { readonly graph: string; readonly files: readonly FileStamp[] },
): Promise<void> {
  const files: FileStamp[] = [];
  for (const path of await filesBelow(folder)) {
    const handle = await open(join(folder, path), 'r+');
    try {
      await handle.sync();
    } finally {
      await handle.close();
    }
    files.push(await stampOf(folder, path));
  }
  const manifest: Manifest = { key, source: { graph: source.graph, files: [...source.files] }, files };
  const handle = await open(join(folder, MANIFEST), 'wx');
  try {
    await handle.writeFile(`${JSON.stringify(manifest, undefined, 2)}\n`);
    await handle.sync();
  } finally {
    await handle.close();
  }
}

async function filesBelow(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => relative(folder, join(entry.parentPath, entry.name)).split(sep).join('/'))
    .sort();
}

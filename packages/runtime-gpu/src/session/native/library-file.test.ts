import { copyFile, mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { checkLibraryFile, libraryFile, ORT_LIBRARY_VARIABLE } from './library-file.js';

const linux = process.platform === 'linux';

describe('the shared library', () => {
  let folder: string;
  let copy: string;
  beforeAll(async () => {
    folder = await mkdtemp(path.join(tmpdir(), 'cqil-library-'));
    copy = path.join(folder, 'libother.so');
    await copyFile(libraryFile({}).file, copy);
  });
  afterAll(() => rm(folder, { recursive: true }));

  it("is the package's own, unless the user names another", async () => {
    expect(libraryFile({ [ORT_LIBRARY_VARIABLE]: '' }).origin).toBe('package');
    expect(libraryFile({ [ORT_LIBRARY_VARIABLE]: copy })).toEqual({ file: copy, origin: 'user' });
    await checkLibraryFile(libraryFile({}));
    await checkLibraryFile({ file: copy, origin: 'user' });
  });

  it.runIf(linux)('is looked at before it is mapped', async () => {
    const bad = async (name: string, change: (file: string) => Promise<void>) => {
      const file = path.join(folder, name);
      await copyFile(copy, file);
      await change(file);
      return checkLibraryFile({ file, origin: 'user' }).catch((error: unknown) => error);
    };
    const code = 'ORT_LIBRARY_UNUSABLE';
    const hint = expect.stringContaining(ORT_LIBRARY_VARIABLE);
    expect(
      await checkLibraryFile({ file: path.join(folder, 'none.so'), origin: 'user' }).catch((e) => e),
    ).toMatchObject({ code, hint });
    expect(await bad('text.so', (file) => writeFile(file, 'not a library'))).toMatchObject({ code, hint });
    expect(await bad('empty.so', (file) => writeFile(file, ''))).toMatchObject({ code });
    for (const bytes of [64, 4096, 10_000_000]) {
      expect(await bad('short.so', (file) => truncate(file, bytes))).toMatchObject({ code, hint });
    }
    const other = await bad('other.so', async (file) => {
      const bytes = await readFile(file);
      bytes.writeUInt16LE(process.arch === 'x64' ? 183 : 62, 18);
      await writeFile(file, bytes);
    });
    expect(other).toMatchObject({ code, expected: process.arch });
  });
});

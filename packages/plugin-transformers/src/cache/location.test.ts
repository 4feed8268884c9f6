import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { temporaryFolder } from '../test/temporary.js';
import { cacheFolders, canWrite, userCacheFolder } from './location.js';

describe('cacheFolders', () => {
  it('are beside the model, then in the user cache', () => {
    const model = temporaryFolder();
    const [beside, user] = cacheFolders(model);
    expect(beside).toBe(join(model, '.cqil'));
    expect(user?.startsWith(join(userCacheFolder(), 'transformers'))).toBe(true);
  });

  it('is the one that the user names, with a folder for each model', () => {
    const own = temporaryFolder();
    const one = cacheFolders(temporaryFolder(), own);
    const two = cacheFolders(temporaryFolder(), own);
    expect(one).toHaveLength(1);
    expect(one[0]?.startsWith(own)).toBe(true);
    expect(one[0]).not.toBe(two[0]);
  });
});

describe('userCacheFolder', () => {
  it('is where each system keeps caches', () => {
    expect(userCacheFolder({ XDG_CACHE_HOME: '/c' }, 'linux')).toBe(join('/c', 'cqil'));
    expect(userCacheFolder({}, 'linux')).toMatch(/[/\\]\.cache[/\\]cqil$/);
    expect(userCacheFolder({}, 'darwin')).toMatch(/Library[/\\]Caches[/\\]cqil$/);
    expect(userCacheFolder({ LOCALAPPDATA: 'L' }, 'win32')).toBe(join('L', 'cqil'));
  });
});

describe('canWrite', () => {
  it('makes the folder', async () => {
    expect(await canWrite(join(temporaryFolder(), 'a', 'b'))).toBe(true);
  });

  it('is false where a file is in the way', async () => {
    const file = join(temporaryFolder(), 'file');
    writeFileSync(file, '');
    expect(await canWrite(file)).toBe(false);
    expect(await canWrite(join(file, 'below'))).toBe(false);
  });
});

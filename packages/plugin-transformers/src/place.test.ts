import { mkdirSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { env as real } from '@huggingface/transformers';
import { describe, expect, it } from 'vitest';
import { isModelId, pathFrom, placeOf } from './place.js';
import { temporaryFolder } from './test/temporary.js';

const env = {
  ...real,
  cacheDir: '/cache',
  localModelPath: '/models/',
  allowLocalModels: true,
  allowRemoteModels: true,
  useFSCache: true,
  useCustomCache: false,
  useBrowserCache: false,
};

describe('isModelId', () => {
  it.each(['gpt2', 'HuggingFaceTB/SmolLM2-135M-Instruct', 'a/b.c_d-1'])('takes %s', (id) => {
    expect(isModelId(id)).toBe(true);
  });
  it.each(['/models/gpt2', './gpt2', '../gpt2', 'a/b/c', 'C:\\models\\gpt2', 'a--b/c', 'a/b.git', ''])(
    'takes %s for a path',
    (path) => {
      expect(isModelId(path)).toBe(false);
    },
  );
});

describe('placeOf', () => {
  it('of a path is that folder', () => {
    expect(placeOf(env, '/data/model', {})).toEqual({
      kind: 'path',
      folders: [{ dir: '/data/model', joins: 'files' }],
    });
  });

  it("of an id is the file cache, the user's folder of models, and the hub", () => {
    expect(placeOf(env, 'org/model', {})).toEqual({
      kind: 'id',
      folders: [
        { dir: '/cache/org/model', joins: 'names' },
        { dir: '/models/org/model', joins: 'files' },
      ],
      downloads: { dir: '/cache/org/model', joins: 'names' },
    });
  });

  it('keeps revisions apart, and honours cache_dir', () => {
    const place = placeOf(env, 'org/model', { revision: 'v2', cache_dir: '/other' });
    expect(place.downloads?.dir).toBe('/other/org/model/v2');
  });

  it.each([
    [{ ...env, allowRemoteModels: false }, {}],
    [env, { local_files_only: true }],
    [{ ...env, useFSCache: false }, {}],
    [{ ...env, useCustomCache: true }, {}],
  ])('downloads nothing where Transformers.js may not, or keeps no files (%#)', (own, options) => {
    expect(placeOf(own, 'org/model', options)).not.toHaveProperty('downloads');
  });
});

describe('pathFrom', () => {
  it('follows links where the file system does, and names where the cache does', () => {
    const root = temporaryFolder();
    mkdirSync(join(root, 'real', 'deep', 'model'), { recursive: true });
    mkdirSync(join(root, 'cache'));
    symlinkSync(join(root, 'real', 'deep', 'model'), join(root, 'link'));
    const target = join(root, 'cache');
    expect(pathFrom({ dir: join(root, 'link'), joins: 'files' }, target)).toBe('../../../cache');
    expect(pathFrom({ dir: join(root, 'link'), joins: 'names' }, target)).toBe('../cache');
  });
});

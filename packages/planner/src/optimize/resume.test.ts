import { appendFile, cp, mkdir, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import path from 'node:path';
import type { Progress } from '@cqil/core';
import { seededRandom } from '@cqil/runtime-gpu';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { OptimizeOptions } from './index.js';
import { Bench, filesIn } from './testing/runs.js';

let bench: Bench;
/** Reports of progress of a whole run. */
const reports: Progress[] = [];
let whole: Awaited<ReturnType<Bench['result']>>;
beforeAll(async () => {
  bench = await Bench.open();
  const out = bench.out();
  await bench.run(out, { ...small, onProgress: (progress) => reports.push(progress) });
  whole = await bench.result(out);
});
afterAll(() => bench.close());

/** Not all plans are measured, so that the search goes by what it learns on its way. */
const small: Partial<OptimizeOptions> = {
  budget: 12,
  tokens: { calibration: 1600, development: 320, evaluation: 64 },
  costTokens: 64,
  searchTokens: 64,
};

/** Runs until the n-th report of progress. @returns whether it came to its end */
async function stopped(out: string, n: number, more: Partial<OptimizeOptions> = {}): Promise<boolean> {
  const controller = new AbortController();
  const reason = new Error('stopped by the test');
  let count = 0;
  const onProgress = () => {
    count += 1;
    if (count === n) controller.abort(reason);
  };
  try {
    await bench.run(out, { ...small, ...more, signal: controller.signal, onProgress });
    return true;
  } catch (error) {
    if (error !== reason) throw error;
    expect(await bench.left()).not.toContain(path.basename(out));
    return false;
  }
}

/** A run that was stopped when it had almost everything. */
async function almostDone(out: string): Promise<string[]> {
  expect(await stopped(out, reports.length - 1)).toBe(false);
  const files = await filesIn(`${out}.work`);
  expect(files.some((file) => file.startsWith('rows'))).toBe(true);
  return files.filter((file) => file !== 'work.json');
}

describe('a run that was stopped', () => {
  it('goes on from each phase to the same result', async () => {
    const phases = [...new Set(reports.map(({ phase }) => phase))];
    expect(phases.length).toBeGreaterThan(5);
    const out = bench.out();
    for (const phase of phases) {
      // What was done before is not reported again, so a later stop is further on.
      const first = reports.findIndex((report) => report.phase === phase) + 1;
      await stopped(out, first);
    }
    await bench.run(out, small);
    expect(await bench.result(out)).toEqual(whole);
  });

  it.each([0.45, 0.9])('goes on from %d of its way to the same result', async (share) => {
    const out = bench.out();
    expect(await stopped(out, Math.ceil(share * reports.length))).toBe(false);
    await bench.run(out, small);
    expect(await bench.result(out)).toEqual(whole);
    expect(await bench.left()).not.toContain(`${path.basename(out)}.work`);
  });

  it('goes on however often it is stopped', async () => {
    const out = bench.out();
    let times = 0;
    // A step further each time, so that it comes to an end even where a step is begun anew.
    while (!(await stopped(out, 12 + 9 * times))) times += 1;
    expect(times).toBeGreaterThan(5);
    expect(await bench.result(out)).toEqual(whole);
  });

  it('does not do again what was done', async () => {
    const out = bench.out();
    await almostDone(out);
    const again: Progress[] = [];
    await bench.run(out, { ...small, onProgress: (progress) => again.push(progress) });
    const phases = new Set(again.map(({ phase }) => phase));
    for (const done of ['measuring groups', 'recovering']) expect([...phases]).not.toContain(done);
    const judged = (list: readonly Progress[]) =>
      list.filter(({ phase }) => phase === 'measuring quality').length;
    expect(judged(again)).toBeGreaterThan(0);
    expect(judged(again)).toBeLessThan(judged(reports) / 4);
  });

  it('goes on between the last two steps: the result has its name, the work is still there', async () => {
    const out = bench.out();
    const files = await almostDone(out);
    const copy = `${out}-copy`;
    await bench.run(out, small);
    const report = await readFile(path.join(out, 'cqil.report.json'));
    await cp(out, copy, { recursive: true });
    // The work as it is left then: made again from another run of the same.
    const other = bench.out();
    await almostDone(other);
    await cp(`${other}.work`, `${copy}.work`, { recursive: true });
    const { createHash } = await import('node:crypto');
    const done = { report: createHash('sha256').update(report).digest('hex') };
    await writeFile(path.join(`${copy}.work`, 'done.json'), JSON.stringify(done));
    expect(files).not.toContain('done.json');
    await bench.run(copy, small);
    expect(await readFile(path.join(copy, 'cqil.report.json'))).toEqual(report);
    expect(await bench.left()).not.toContain(`${path.basename(copy)}.work`);
    // Somebody else's folder is not taken for that.
    await mkdir(`${copy}.work`);
    await expect(bench.run(copy, small)).rejects.toMatchObject({ code: 'OUTPUT_NOT_EMPTY' });
  });
});

describe('a work folder that was damaged', () => {
  it.each([1])('files cut short at places of seed %i', async (seed) => {
    const out = bench.out();
    const random = seededRandom(seed);
    for (const file of await almostDone(out)) {
      if (random() < 0.3) continue;
      const place = path.join(`${out}.work`, file);
      await truncate(place, Math.floor(random() * (await readFile(place)).length));
    }
    await bench.run(out, small);
    expect(await bench.result(out)).toMatchObject({ report: whole.report, files: whole.files });
  });

  it.each([3])('files gone, of seed %i', async (seed) => {
    const out = bench.out();
    const random = seededRandom(seed);
    for (const file of await almostDone(out)) {
      if (random() < 0.5) await rm(path.join(`${out}.work`, file));
    }
    await bench.run(out, small);
    expect(await bench.result(out)).toMatchObject({ report: whole.report, files: whole.files });
  });

  it('files of something else', async () => {
    const out = bench.out();
    for (const file of await almostDone(out)) {
      const place = path.join(`${out}.work`, file);
      if (file.endsWith('.json')) await writeFile(place, '{"something": ["else"], "plan": 7}\n');
      if (file.endsWith('.jsonl')) await appendFile(place, '{"plan": {"groups": 3}, "kinds": []}\nnothing\n');
    }
    await bench.run(out, small);
    expect(await bench.result(out)).toMatchObject({ report: whole.report, files: whole.files });
  });
});

describe('work of other settings', () => {
  it('is refused, and begun anew where that is asked for', async () => {
    const out = bench.out();
    await stopped(out, Math.ceil(reports.length / 2));
    const other = { ...small, target: { maxSteps: 5 } };
    await expect(bench.run(out, other)).rejects.toMatchObject({
      code: 'WORK_OTHER',
      found: expect.stringContaining('"maxSteps": 4'),
    });
    // The refusal left the work as it was.
    expect(await stopped(out, 3)).toBe(false);
    await bench.run(out, { ...other, restart: true });
    const fresh = bench.out();
    await bench.run(fresh, other);
    expect(await bench.result(out)).toEqual(await bench.result(fresh));
  });

  it('is told by the texts, too', async () => {
    const out = bench.out();
    const file = path.join(bench.folder, 'changing.txt');
    const text = await readFile(path.join(bench.folder, 'texts', 'prose.txt'), 'utf8');
    await writeFile(file, text);
    const more = { ...small, texts: [file] };
    await stopped(out, 5, more);
    await writeFile(file, `Another beginning.\n\n${text}`);
    await expect(bench.run(out, more)).rejects.toMatchObject({ code: 'WORK_OTHER' });
  });

  it('does not keep what was judged by another text', async () => {
    const out = bench.out();
    const file = path.join(bench.folder, 'judging.txt');
    const text = await readFile(path.join(bench.folder, 'texts', 'code.txt'), 'utf8');
    const more = { ...small, texts: [bench.texts[0]!], evaluationTexts: [file], baselines: 'none' as const };
    await writeFile(file, text.slice(0, text.length / 2));
    const seen: Progress[] = [];
    await bench.run(bench.out(), { ...more, onProgress: (progress) => seen.push(progress) });
    await stopped(out, seen.length - 1, more);
    expect((await filesIn(`${out}.work`)).filter((name) => name.startsWith('rows')).length).toBeGreaterThan(
      0,
    );
    await writeFile(file, text.slice(text.length / 2));
    await bench.run(out, more);
    const fresh = bench.out();
    await bench.run(fresh, more);
    expect(await bench.result(out)).toEqual(await bench.result(fresh));
  });
});

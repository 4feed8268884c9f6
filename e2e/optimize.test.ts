import { createHash } from 'node:crypto';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { modelFolder, textFiles } from '../packages/planner/src/optimize/testing/fixtures.js';
import { cqil } from './run.js';

let dir: string;
let argv: string[];
/** Of the whole run that all others are compared with. */
let whole: { readonly seconds: number; readonly result: object };
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'cqil-e2e-optimize-'));
  const model = await modelFolder('optimum/llama', join(dir, 'model'));
  const amounts = ['--tokens', '3072', '--development-tokens', '512', '--evaluation-tokens', '256'];
  const texts = await textFiles(join(dir, 'texts'));
  argv = [
    'optimize',
    model,
    '--max-steps',
    '4',
    '--effort',
    'quick',
    '--text',
    ...texts,
    ...amounts,
    '--window',
    '32',
  ];
  const start = performance.now();
  const out = join(dir, 'whole');
  expect(await cqil([...argv, '--out', out])).toMatchObject({ code: 0 });
  whole = { seconds: (performance.now() - start) / 1000, result: await resultOf(out) };
});
afterAll(() => rm(dir, { recursive: true, force: true }));

/** The report but for its times and its own name, and all files that tell none. */
async function resultOf(out: string): Promise<object> {
  const {
    created: _,
    timings: __,
    command: ___,
    ...report
  } = JSON.parse(await readFile(join(out, 'cqil.report.json'), 'utf8')) as Record<string, unknown>;
  const files: [string, string][] = [];
  for (const entry of await readdir(out, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile() || entry.name.startsWith('cqil.report.') || entry.name === 'README.md') continue;
    const bytes = await readFile(join(entry.parentPath, entry.name));
    files.push([entry.name, createHash('sha256').update(bytes).digest('hex')]);
  }
  return { report, files: files.sort(([a], [b]) => (a < b ? -1 : 1)) };
}

/** What is there of an output, temporary names included. */
async function namesOf(out: string): Promise<string[]> {
  return (await readdir(dirname(out))).filter((name) => name.startsWith(basename(out)));
}

describe('cqil optimize as a process', () => {
  it.each([0.15, 0.6, 0.95])(
    'killed after %d of its time: nothing under its name, and the same result when it is started again',
    async (share) => {
      const out = join(dir, `killed-${share}`);
      const killed = await cqil([...argv, '--out', out], {
        onStart: (child) => setTimeout(() => child.kill('SIGKILL'), 1000 * share * whole.seconds),
      });
      // A faster run than the one that was timed may have come to its end.
      if (killed.code === null) expect(await namesOf(out)).not.toContain(basename(out));
      const again = await cqil([...argv, '--out', out]);
      const wasDone = killed.code === 0;
      expect(again.code).toBe(wasDone ? 2 : 0);
      expect(await resultOf(out)).toEqual(whole.result);
      expect(await namesOf(out)).toEqual([basename(out)]);
    },
  );

  it('killed again and again', async () => {
    const out = join(dir, 'often');
    for (let kill = 1; kill <= 6; kill++) {
      const { code } = await cqil([...argv, '--out', out], {
        // Long enough to open the model and to get a little further.
        onStart: (child) => setTimeout(() => child.kill('SIGKILL'), (1000 * whole.seconds * (2 + kill)) / 10),
      });
      if (code === 0) break;
    }
    await cqil([...argv, '--out', out]);
    expect(await resultOf(out)).toEqual(whole.result);
    expect(await namesOf(out)).toEqual([basename(out)]);
  });

  it('stopped by Ctrl-C says so, and goes on', async () => {
    const out = join(dir, 'stopped');
    const stopped = await cqil([...argv, '--out', out, '--json'], {
      onStart: (child) =>
        child.stderr?.on('data', (text: string) => {
          if (text.includes('recovering')) child.kill('SIGINT');
        }),
    });
    expect(stopped.code).toBe(130);
    expect(JSON.parse(stopped.stdout)).toMatchObject({ error: { code: 'STOPPED' } });
    expect(await namesOf(out)).toEqual([`${basename(out)}.work`]);
    expect(await cqil([...argv, '--out', out])).toMatchObject({ code: 0 });
    expect(await resultOf(out)).toEqual(whole.result);
  });
});

import { execFile } from 'node:child_process';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { OptimizeReport } from '@cqil/planner';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { modelFolder, textFiles } from '../../../planner/src/optimize/testing/fixtures.js';
import { cqil } from '../test/run.js';

let dir: string;
let model: string;
let texts: string[];
let count = 0;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'cqil-optimize-'));
  model = await modelFolder('genai-fp32/llama', join(dir, 'a model'));
  texts = await textFiles(join(dir, 'texts'));
});
afterAll(() => rm(dir, { recursive: true }));

const newOut = () => {
  count += 1;
  return join(dir, `out-${count}`);
};
const amounts = ['--tokens', '1600', '--development-tokens', '320', '--evaluation-tokens', '128'];
const small = [...amounts, '--search-tokens', '64', '--window', '32', '--budget', '4'];

describe('cqil optimize', () => {
  it('gives the folder and the report as one JSON document, and the page and card in the folder', async () => {
    const out = newOut();
    const argv = ['optimize', model, '--max-steps', '4', '--text', ...texts, ...small, '--out', out];
    const { code, stdout, stderr } = await cqil(...argv, '--baselines', 'none', '--json');
    expect(stderr).not.toMatch(/^[A-Z]+_[A-Z]+: /m);
    expect(code).toBe(0);
    const { root, report } = JSON.parse(stdout) as { root: string; report: OptimizeReport };
    expect(root).toBe(out);
    expect(report.evaluation.rows.map(({ id, steps }) => [id, steps])).toEqual([
      ['original', 6],
      ['ours', 4],
      ['ours-recovered', 4],
    ]);
    expect(report).toEqual(JSON.parse(await readFile(join(out, 'cqil.report.json'), 'utf8')));
    const card = await readFile(join(out, 'README.md'), 'utf8');
    const page = await readFile(join(out, 'cqil.report.html'), 'utf8');

    // The command is one that a shell takes.
    const echo = `${report.command.replace(/^cqil /, 'printf "%s\\n" ')}`;
    const { stdout: words } = await promisify(execFile)('sh', ['-c', echo]);
    expect(words.trim().split('\n')).toEqual([
      'optimize',
      model,
      '--max-steps',
      '4',
      '--text',
      ...texts,
      ...amounts,
      '--search-tokens',
      '64',
      '--window',
      '32',
      '--budget',
      '4',
      '--baselines',
      'none',
      '--out',
      out,
    ]);

    // The page and the card are made anew from the document alone.
    await writeFile(join(out, 'cqil.report.html'), 'lost');
    await rm(join(out, 'README.md'));
    const shown = await cqil('report', out);
    expect(shown).toMatchObject({ code: 0, stdout: '' });
    expect(shown.stderr).toMatch(/excess perplexity +steps +repaired +prose +code +mean/);
    expect(shown.stderr).toMatch(/Original +6 +\(\d/);
    expect(shown.stderr).toMatch(/CQIL, searched +4 +yes +[+−]\d+\.\d %/);
    expect(await readFile(join(out, 'README.md'), 'utf8')).toBe(card);
    expect(await readFile(join(out, 'cqil.report.html'), 'utf8')).toBe(page);
    const document = JSON.parse((await cqil('report', out, '--json')).stdout) as object;
    expect(document).toMatchObject({ report, json: join(out, 'cqil.report.json') });

    // What groups cost need not be measured again, and the folder holds what `verify` holds it to.
    const again = newOut();
    const costs = ['--costs', join(out, 'cqil.costs.json'), '--no-recover'];
    const second = await cqil(
      'optimize',
      model,
      '--target-speedup',
      '1.2x',
      '--text',
      ...texts,
      ...small,
      ...costs,
      '--out',
      again,
    );
    expect(second).toMatchObject({ code: 0, stdout: '' });
    expect(second.stderr).not.toContain('measuring groups');
    expect(second.stderr).toContain(`wrote ${again}`);
    expect((await cqil('verify', model, again)).code).toBe(0);
  });

  it.each([
    ['no target', [], 'OPTIMIZE_TARGET', '0 of them'],
    ['two targets', ['--max-steps', '4', '--max-quality-loss', '5%'], 'OPTIMIZE_TARGET', '2 of them'],
    ['a loss without its unit', ['--max-quality-loss', '5'], 'OPTION_INVALID', '"5"'],
    ['a loss below nothing', ['--max-quality-loss=-5%'], 'OPTION_INVALID', '"-5%"'],
    ['a speed-up that is none', ['--target-speedup', 'fast'], 'OPTION_INVALID', '"fast"'],
    ['a speed-up below one', ['--target-speedup', '0.5x'], 'PLAN_PARAMETERS', '0.5'],
    ['steps that are none', ['--max-steps', '0'], 'OPTION_INVALID', '"0"'],
    [
      'steps out of reach',
      ['--max-steps', '1'],
      'TARGET_UNREACHABLE',
      '2 steps at the fewest, 6 / 2 = 3.00 times as fast',
    ],
    [
      'costs that are not there',
      ['--max-steps', '4', '--costs', 'nowhere.json'],
      'COSTS_NOT_FOUND',
      expect.any(String),
    ],
    [
      'text that is not there',
      ['--max-steps', '4', '--text', 'nowhere.txt'],
      'TEXT_NOT_FOUND',
      expect.any(String),
    ],
    ['text beside nothing', ['--max-steps', '4', '--beside-text', 'nowhere.txt'], 'BESIDE_TEXTS', 'none'],
  ])('refuses %s, and writes nothing', async (_, argv, code, found) => {
    const before = await readdir(dir);
    const result = await cqil('optimize', model, ...argv, '--out', newOut(), '--json');
    expect(result.code).toBe(2);
    expect(JSON.parse(result.stdout)).toMatchObject({ error: { code, found } });
    expect(await readdir(dir)).toEqual(before);
  });
});

describe('cqil report', () => {
  it('refuses a folder without a report, and a report that is none', async () => {
    expect(JSON.parse((await cqil('report', model, '--json')).stdout)).toMatchObject({
      error: { code: 'REPORT_NOT_FOUND' },
    });
    const folder = await mkdtemp(join(dir, 'wrong-'));
    await writeFile(join(folder, 'cqil.report.json'), '{"version": 1}');
    const { code, stdout } = await cqil('report', folder, '--json');
    expect(code).toBe(2);
    expect(JSON.parse(stdout)).toMatchObject({ error: { code: 'REPORT_INVALID' } });
    expect(await readdir(folder)).toEqual(['cqil.report.json']);
  });
});

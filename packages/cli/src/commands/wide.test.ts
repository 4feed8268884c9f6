import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { OptimizeReport } from '@cqil/planner';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { modelFolder, textFiles } from '../../../planner/src/optimize/testing/fixtures.js';
import { cqil, testdata } from '../test/run.js';

let dir: string;
let model: string;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'cqil-wide-'));
  model = await modelFolder('genai-fp32/llama', join(dir, 'model'));
});
afterAll(() => rm(dir, { recursive: true }));

const GEOMETRY = ['--group-size', '2', '--start', '1', '--end', '5'];

describe('the wide form', () => {
  it('goes from a plan through rewrite to a model that verify passes', async () => {
    const [plan, out] = [join(dir, 'plan.json'), join(dir, 'out')];
    expect(await cqil('plan', model, ...GEOMETRY, '--form', 'wide', '--out', plan)).toMatchObject({
      code: 0,
    });
    expect(JSON.parse(await readFile(plan, 'utf8'))).toMatchObject({
      groups: [
        { layers: [1, 2], bypass: 'full', form: 'wide' },
        { layers: [3, 4], bypass: 'full', form: 'wide' },
      ],
    });
    const written = await cqil('rewrite', model, '--plan', plan, '--out', out, '--kv', 'merged', '--json');
    expect(written).toMatchObject({ code: 0 });
    const { checks } = JSON.parse(written.stdout) as { checks: { name: string; status: string }[] };
    expect(checks).toContainEqual(expect.objectContaining({ name: 'wide', status: 'passed' }));
    expect(checks).toContainEqual(expect.objectContaining({ name: 'parity.decode', status: 'passed' }));
    expect((await cqil('verify', model, out)).code).toBe(0);
  });

  it('has a packed one beside it, for any bypass', async () => {
    const [plan, out] = [join(dir, 'packed.json'), join(dir, 'packed')];
    const words = [...GEOMETRY, '--bypass', '1', '--form', 'packed'];
    expect(await cqil('plan', model, ...words, '--out', plan)).toMatchObject({ code: 0 });
    const written = await cqil('rewrite', model, '--plan', plan, '--out', out, '--kv', 'merged', '--json');
    expect(written).toMatchObject({ code: 0 });
    const { checks } = JSON.parse(written.stdout) as { checks: { name: string; status: string }[] };
    expect(checks).toContainEqual(expect.objectContaining({ name: 'wide', status: 'passed' }));
    expect(checks).toContainEqual(expect.objectContaining({ name: 'parity.decode', status: 'passed' }));
  });

  it.each([
    ['another bypass', ['--bypass', '1'], 'genai-fp32/llama', 'PLAN_OPTIONS', 'bypass 1 of layers 1 to 2'],
    [
      'layers that are not alike',
      [],
      'families/gemma2/genai-fp32',
      'PLAN_WIDE_IMPOSSIBLE',
      'a norm stands behind the attention of layer 1',
    ],
  ])('is refused for %s', async (_, argv, fixture, code, found) => {
    const geometry = ['--group-size', '2', '--start', '1', '--end', '3', ...argv];
    const before = await readdir(dir);
    const plan = ['plan', testdata(fixture), ...geometry, '--form', 'wide', '--out', join(dir, 'no.json')];
    const { code: exit, stdout } = await cqil(...plan, '--json');
    expect(exit).toBe(2);
    expect(JSON.parse(stdout)).toMatchObject({ error: { code, found } });
    expect(await readdir(dir)).toEqual(before);
  });

  it('is what optimize searches, repairs and writes where it is asked for', {
    timeout: 180_000,
  }, async () => {
    const texts = await textFiles(join(dir, 'texts'));
    const out = join(dir, 'optimized');
    const amounts = ['--tokens', '1600', '--development-tokens', '320', '--evaluation-tokens', '128'];
    const small = [...amounts, '--search-tokens', '64', '--window', '32', '--budget', '4'];
    const argv = ['optimize', model, '--max-steps', '4', '--text', ...texts, ...small, '--form', 'wide'];
    const result = await cqil(...argv, '--baselines', 'none', '--out', out, '--json');
    expect(result).toMatchObject({ code: 0 });
    const { report } = JSON.parse(result.stdout) as { report: OptimizeReport };
    expect(report.plan.groups.length).toBeGreaterThan(0);
    for (const group of report.plan.groups) expect(group).toMatchObject({ bypass: 'full', form: 'wide' });
    expect(report.command).toContain('--form wide');
    expect(report.recovery.length).toBeGreaterThan(0);
    const checked = await cqil('verify', model, out, '--json');
    const checks = (JSON.parse(checked.stdout) as { checks: { name: string; ok: boolean }[] }).checks;
    expect(checks.filter(({ ok }) => !ok)).toEqual([]);
    expect(checks.map(({ name }) => name)).toEqual(
      expect.arrayContaining(['recovery', 'wide', 'parity.prefill']),
    );
    expect(report.evaluation.rows.map(({ id }) => id)).toEqual(['original', 'ours', 'ours-recovered']);
  });
});

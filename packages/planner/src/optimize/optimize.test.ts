import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { parsePlan, sequentialSteps } from '@cqil/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readCosts } from '../costs/index.js';
import { readReport } from '../report/index.js';
import { locateModel } from '../source/index.js';
import { verify } from '../verify/index.js';
import type { OptimizeReport } from './index.js';
import { textFiles } from './testing/fixtures.js';
import { Bench } from './testing/runs.js';

let bench: Bench;
beforeAll(async () => {
  bench = await Bench.open();
});
afterAll(() => bench.close());

const excessOf = (report: OptimizeReport, id: string) =>
  report.evaluation.rows.find((row) => row.id === id)?.excess as number;

describe('optimize', () => {
  it('goes all the way from a model to a judged one', async () => {
    const out = bench.out();
    const report = await bench.run(out, { samples: true });
    expect((await readdir(out)).sort()).toEqual([
      'README.md',
      'config.json',
      'cqil.costs.json',
      'cqil.plan.json',
      'cqil.report.html',
      'cqil.report.json',
      'generation_config.json',
      'onnx',
      'tokenizer.json',
      'tokenizer_config.json',
    ]);
    expect(await bench.left()).toEqual([path.basename(out)]);
    expect(await readReport(path.join(out, 'cqil.report.json'))).toEqual(report);

    expect(sequentialSteps(report.plan)).toBe(4);
    expect(parsePlan(JSON.parse(await readFile(path.join(out, 'cqil.plan.json'), 'utf8')))).toEqual(
      report.plan,
    );
    const rows = report.evaluation.rows.map(({ id, steps, recovered }) => [id, steps, recovered]);
    expect(rows).toEqual([
      ['original', 6, false],
      ['skip-alternate', 4, false],
      ['skip-influence', 4, false],
      ['skip-even', 4, false],
      ['layer-parallelism', 4, false],
      ['uniform', 4, false],
      ['ours', 4, false],
      ['ours-recovered', 4, true],
    ]);
    const kl = (id: string) =>
      report.evaluation.rows.find((row) => row.id === id)!.kinds.reduce((sum, kind) => sum + kind.kl, 0);
    expect(kl('ours-recovered')).toBeLessThan(kl('ours'));
    expect(kl('ours')).toBeLessThan(kl('skip-influence'));
    const { rows: judged } = report.evaluation;
    for (const id of ['original', 'ours', 'ours-recovered']) {
      expect(judged.find((row) => row.id === id)).toMatchObject({
        items: expect.anything(),
        generation: expect.anything(),
      });
    }
    expect(report.samples.length).toBeGreaterThan(0);
    expect(report.recovery.some(({ kept }) => kept)).toBe(true);
    expect(report.texts.evaluation.map(({ kind }) => kind)).toEqual(['prose', 'code']);

    const checked = await verify(bench.source, await locateModel(out), { session: { threads: 1 } });
    expect(checked.checks.filter(({ ok }) => !ok)).toEqual([]);
    expect(checked.ok).toBe(true);
  });

  it('gives the same again, and with costs that were measured before', async () => {
    const [a, b, c] = [bench.out(), bench.out(), bench.out()];
    await bench.run(a);
    await bench.run(b);
    expect(await bench.result(b)).toEqual(await bench.result(a));
    await bench.run(c, { costs: await readCosts(path.join(a, 'cqil.costs.json')) });
    expect(await bench.result(c)).toEqual(await bench.result(a));
  });

  it('leaves matrices as they are where no recovery is wanted', async () => {
    const out = bench.out();
    const report = await bench.run(out, { recover: false, baselines: 'none' });
    expect(report.evaluation.rows.map(({ id }) => id)).toEqual(['original', 'ours']);
    expect(report.recovery).toEqual([]);
    const { checks, ok } = await verify(bench.source, await locateModel(out), { session: { threads: 1 } });
    expect(ok).toBe(true);
    expect(checks.map(({ name }) => name)).not.toContain('recovery');
  });

  it('repairs baselines in the same way', async () => {
    const report = await bench.run(bench.out(), { baselines: 'recovered' });
    const { rows } = report.evaluation;
    const kl = (id: string) =>
      rows.find((row) => row.id === id)!.kinds.reduce((sum, kind) => sum + kind.kl, 0);
    for (const id of [
      'skip-alternate',
      'skip-influence',
      'skip-even',
      'layer-parallelism',
      'uniform',
      'ours',
    ]) {
      expect(rows.find((row) => row.id === `${id}-recovered`)).toMatchObject({ recovered: true, steps: 4 });
      expect(kl(`${id}-recovered`)).toBeLessThan(kl(id));
    }
    // Next to each other, so that the table shows what it does.
    const ids = rows.map(({ id }) => id);
    expect(ids.indexOf('uniform-recovered')).toBe(ids.indexOf('uniform') + 1);
  });

  it('chooses by development text, whatever the evaluation text is', async () => {
    const [a, b] = [bench.out(), bench.out()];
    const evaluationTexts = async (seed: number) =>
      textFiles(path.join(bench.folder, `evaluation-${seed}`), 600, seed);
    const one = await bench.run(a, { evaluationTexts: await evaluationTexts(11) });
    const other = await bench.run(b, { evaluationTexts: await evaluationTexts(12) });
    expect(one.evaluation.rows.at(-1)).not.toEqual(other.evaluation.rows.at(-1));
    const [{ files: before }, { files: after }] = [await bench.result(a), await bench.result(b)];
    expect(after).toEqual(before);
  });

  it('reports text beside the rest, and counts it for no mean', async () => {
    const [prose, code] = await textFiles(path.join(bench.folder, 'judging'), 600, 21);
    const more = { recover: false, baselines: 'none' as const, evaluationTexts: [code!] };
    const report = await bench.run(bench.out(), { ...more, besideTexts: [prose!.replace('prose', 'other')] });
    expect(report.evaluation.kinds).toEqual(['code', 'other']);
    const [counted, beside] = report.evaluation.rows.find(({ id }) => id === 'ours')!.kinds;
    expect([counted?.beside, beside?.beside]).toEqual([undefined, true]);
    expect(beside?.excess).not.toBeCloseTo(counted!.excess, 6);
    expect(excessOf(report, 'ours')).toBeCloseTo(counted!.excess, 12);
    await expect(bench.run(bench.out(), { ...more, besideTexts: ['code=else.txt'] })).rejects.toMatchObject({
      code: 'BESIDE_TEXTS',
    });
    await expect(bench.run(bench.out(), { recover: false, besideTexts: [prose!] })).rejects.toMatchObject({
      code: 'BESIDE_TEXTS',
    });
  });

  it('works on text that the model writes itself, and says so', async () => {
    const tokens = { calibration: 512, development: 256, evaluation: 128 };
    const more = { texts: ['own=self'], tokens, recover: false, baselines: 'none' as const };
    const [a, b] = [bench.out(), bench.out()];
    const report = await bench.run(a, more);
    expect(report.evaluation.kinds).toEqual(['own']);
    expect(report.notes.join()).toMatch(/wrote/);
    await bench.run(b, more);
    expect(await bench.result(b)).toEqual(await bench.result(a));
  });

  it('notes why a baseline has no repaired form', async () => {
    // Of three layers in one span the matrices have more rows than this text has tokens; ours has pairs.
    const report = await bench.run(bench.out(), {
      baselines: 'recovered',
      groupSizes: [2],
      tokens: { calibration: 420, development: 320, evaluation: 128 },
      target: { maxSteps: 3 },
    });
    const { rows } = report.evaluation;
    const influence = rows.find(({ id }) => id === 'skip-influence');
    expect(influence?.note).toMatch(/^Not repaired: The calibration text is too short .* found: \d+\.$/);
    const ids = rows.map(({ id }) => id);
    expect(ids).not.toContain('skip-influence-recovered');
    expect(ids).toContain('uniform-recovered');
    expect(rows.at(-1)?.id).toBe('ours-recovered');
  });
});

describe('targets', () => {
  const plain = { baselines: 'none', recover: false } as const;

  it.each([
    [{ maxSteps: 5 }, 5],
    [{ maxSteps: 6 }, 6],
    [{ targetSpeedup: 1.5 }, 4],
    [{ targetSpeedup: 1.4 }, 4],
  ])('%j gives %i steps', async (target, steps) => {
    const out = bench.out();
    const report = await bench.run(out, { ...plain, target });
    expect(sequentialSteps(report.plan)).toBe(steps);
    expect((await verify(bench.source, await locateModel(out), { structureOnly: true })).ok).toBe(true);
  });

  /** On its own text a model is the best there is: whatever is changed costs something. */
  const own = { texts: ['self'], tokens: { calibration: 1600, development: 640, evaluation: 64 } };

  it('takes the fewest steps that keep to a loss of quality', async () => {
    const more = { ...plain, ...own, searchTokens: 640, budget: 16 };
    const { front } = await bench.run(bench.out(), more);
    const losses = front.map(({ excess }) => excess);
    expect(losses).toEqual(losses.toSorted((a, b) => a - b));
    const [five, four] = [front.find(({ steps }) => steps === 5)!, front.find(({ steps }) => steps === 4)!];
    const target = { maxQualityLoss: (five.excess + four.excess) / 2 };
    const within = await bench.run(bench.out(), { ...more, target });
    expect(within.plan.groups).toEqual(five.plan.groups);
    const all = await bench.run(bench.out(), { ...more, target: { maxQualityLoss: 99 } });
    expect(sequentialSteps(all.plan)).toBe(2);
    const out = bench.out();
    await expect(
      bench.run(out, { ...more, target: { maxQualityLoss: five.excess / 2 } }),
    ).rejects.toMatchObject({
      code: 'TARGET_UNREACHABLE',
      found: `${(100 * five.excess).toPrecision(3)} % excess perplexity at the least, with 5 steps`,
    });
    expect(await bench.left()).not.toContain(path.basename(out));

    // Repaired, fewer steps lose no more than that.
    const repaired = await bench.run(bench.out(), { ...more, recover: true, target });
    expect(sequentialSteps(repaired.plan)).toBeLessThan(5);
    expect(repaired.evaluation.rows.at(-1)).toMatchObject({ id: 'ours-recovered', recovered: true });
  });
});

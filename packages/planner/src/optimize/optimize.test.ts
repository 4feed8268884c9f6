import { createHash } from 'node:crypto';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { type PlanTarget, type Progress, sequentialSteps } from '@cqil/core';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { readCosts } from '../costs/index.js';
import { readReport } from '../report/index.js';
import { locateModel, type ModelSource } from '../source/index.js';
import { verify } from '../verify/index.js';
import { type OptimizeOptions, type OptimizeReport, optimize } from './index.js';
import { modelFolder, textFiles } from './testing/fixtures.js';

let folder: string;
let source: ModelSource;
let texts: string[];
let out: string;
let runs = 0;
beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'optimize-test-'));
  source = await locateModel(await modelFolder('optimum/llama', path.join(folder, 'llama')));
  texts = await textFiles(path.join(folder, 'texts'));
});
afterAll(() => rm(folder, { recursive: true }));
beforeEach(() => {
  runs += 1;
  out = path.join(folder, `out-${runs}`);
});

function options(more: Partial<OptimizeOptions> = {}): OptimizeOptions {
  return {
    target: { maxSteps: 4 },
    texts,
    tokens: { calibration: 3072, development: 512, evaluation: 512 },
    costTokens: 128,
    searchTokens: 128,
    window: 32,
    samples: false,
    session: { threads: 1 },
    command: 'a test',
    ...more,
  };
}

/** What two runs must have in common. */
export function lasting({ created: _, timings: __, ...rest }: OptimizeReport) {
  return rest;
}

async function bytesOf(root: string): Promise<Record<string, string>> {
  const names = (await readdir(root, { recursive: true, withFileTypes: true })).filter((entry) =>
    entry.isFile(),
  );
  const files = names.map((entry) => path.relative(root, path.join(entry.parentPath, entry.name))).sort();
  const hashes = await Promise.all(
    files
      .filter((file) => !file.startsWith('cqil.report.') && file !== 'README.md')
      .map(async (file) => [
        file,
        createHash('sha256')
          .update(await readFile(path.join(root, file)))
          .digest('hex'),
      ]),
  );
  return Object.fromEntries(hashes);
}

describe('optimize', () => {
  it('goes all the way from a model to a judged one', async () => {
    const start = performance.now();
    const { root, report } = await optimize(source, out, options({ samples: true }));
    console.log('took', performance.now() - start, report.timings);
    expect(root).toBe(out);
    expect(await readdir(out)).toEqual(
      expect.arrayContaining([
        'README.md',
        'config.json',
        'cqil.costs.json',
        'cqil.plan.json',
        'cqil.report.html',
        'cqil.report.json',
        'onnx',
        'tokenizer.json',
      ]),
    );
    expect(await readdir(folder)).not.toContain(`${path.basename(out)}.work`);
    expect(await readReport(path.join(out, 'cqil.report.json'))).toEqual(report);
    expect(sequentialSteps(report.plan)).toBe(4);
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
    console.log(JSON.stringify(report.evaluation.rows.map((r)=>[r.id,r.excess,r.kinds.map(k=>k.kl)])), JSON.stringify(report.front.map(f=>[f.steps,f.kl,f.plan.groups])));
    const checked = await verify(source, await locateModel(out), { session: { threads: 1 } });
    expect(checked.checks.filter(({ ok }) => !ok)).toEqual([]);
    expect(checked.ok).toBe(true);
  });

  it('gives the same again', async () => {
    const [a, b] = [`${out}-a`, `${out}-b`];
    const first = await optimize(source, a, options());
    const second = await optimize(source, b, options());
    expect(lasting(second.report)).toEqual(lasting(first.report));
    expect(await bytesOf(b)).toEqual(await bytesOf(a));
  });
});

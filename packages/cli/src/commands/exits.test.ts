import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ExitsReport } from '@cqil/planner';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { modelFolder, textFiles } from '../../../planner/src/optimize/testing/fixtures.js';
import { cqil } from '../test/run.js';

let dir: string;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'cqil-exits-'));
});
afterAll(() => rm(dir, { recursive: true }));

describe('cqil exits', () => {
  it('says which tokens could leave and what that would save', async () => {
    const model = await modelFolder('genai-fp32/llama', join(dir, 'model'));
    const texts = await textFiles(join(dir, 'texts'));
    const words = ['--text', ...texts, '--tokens', '512', '--evaluation-tokens', '512', '--window', '64'];
    const { code, stdout } = await cqil('exits', model, ...words, '--json');
    expect(code).toBe(0);
    const report = JSON.parse(stdout) as ExitsReport;
    expect(report).toMatchObject({ steps: 6, borders: [1, 2, 3, 4, 5] });
    expect(report.agreement).toHaveLength(5);
    for (const { agreement, cost, exits } of report.results) {
      expect(agreement).toBeLessThanOrEqual(1);
      expect(cost).toBeGreaterThan(0);
      expect(exits.reduce((a, b) => a + b)).toBeCloseTo(1, 9);
    }
    const { stderr } = await cqil('exits', model, ...words);
    expect(stderr).toMatch(/where 99\.0 % are promised, \d+\.\d % of the weights would be read: early exit/);
  });
});

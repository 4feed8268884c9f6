import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { sum, vitestCounts } from './results.mjs';

const dir = mkdtempSync(join(tmpdir(), 'cqil-results-'));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const counts = (report: object, exitCode: number) => {
  const file = join(dir, 'report.json');
  writeFileSync(file, JSON.stringify(report));
  return vitestCounts(file, exitCode);
};

const test = (fullName: string, failureMessages: string[] = []) => ({
  fullName,
  status: failureMessages.length > 0 ? 'failed' : 'passed',
  failureMessages,
});

describe('what a run of vitest comes to', () => {
  it('is its tests, with the failed ones by name', () => {
    const report = {
      numPassedTests: 2,
      testResults: [
        { name: 'a.ts', status: 'passed', assertionResults: [test('works'), test('works, too')] },
        {
          name: 'b.ts',
          status: 'failed',
          assertionResults: [test('breaks', ['Error: no\n  { seed: 1 }\n  at b.ts:3'])],
        },
      ],
    };
    expect(counts(report, 1)).toEqual({
      passed: 2,
      failed: 1,
      failures: ['b.ts > breaks: Error: no | { seed: 1 }'],
    });
  });

  it('counts a file that could not be run, a bad end, and a report that is not there', () => {
    const broken = { name: 'c.ts', status: 'failed', message: 'no such module', assertionResults: [] };
    expect(counts({ numPassedTests: 0, testResults: [broken] }, 1)).toEqual({
      passed: 0,
      failed: 1,
      failures: ['c.ts: no such module'],
    });
    expect(counts({ numPassedTests: 5, testResults: [] }, 3)).toMatchObject({ passed: 5, failed: 1 });
    expect(counts({ numPassedTests: 5, testResults: [] }, 0)).toEqual({ passed: 5, failed: 0, failures: [] });
    expect(vitestCounts(join(dir, 'none.json'), 0)).toMatchObject({ passed: 0, failed: 1 });
  });

  it('is added up', () => {
    const parts = [
      { passed: 1, failed: 1, failures: ['x'] },
      { passed: 2, failed: 0 },
    ];
    expect(sum(parts)).toEqual({ passed: 3, failed: 1, failures: ['x'] });
  });
});

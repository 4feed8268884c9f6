// @ts-check
/** Counts of checks, passed on between scripts as files in the cache. */
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { cache } from './steps.mjs';

/** @typedef {{ passed: number, failed: number }} Counts */

const folder = join(cache, 'results');

/** @param {string} name */
export function resultFile(name) {
  const file = join(folder, `${name}.json`);
  mkdirSync(dirname(file), { recursive: true });
  return file;
}

/** @param {string} name @param {Counts} counts */
export function writeCounts(name, counts) {
  writeFileSync(resultFile(name), JSON.stringify(counts));
}

/** What a script left behind; a script that died before it could counts as one failure. @param {string} name @returns {Counts} */
export function takeCounts(name) {
  const file = resultFile(name);
  if (!existsSync(file)) return { passed: 0, failed: 1 };
  const counts = JSON.parse(readFileSync(file, 'utf8'));
  rmSync(file);
  return counts;
}

/**
 * The counts of a vitest run from its JSON report. A file that could not be run is a failure, and so is a run
 * that ended badly without saying which test it was.
 * @param {string} file
 * @param {number} exitCode
 * @returns {Counts}
 */
export function vitestCounts(file, exitCode) {
  if (!existsSync(file)) return { passed: 0, failed: 1 };
  const report = JSON.parse(readFileSync(file, 'utf8'));
  rmSync(file);
  let failed = report.numFailedTests;
  for (const { status, assertionResults } of report.testResults) {
    if (
      status === 'failed' &&
      !assertionResults.some((/** @type {{ status: string }} */ one) => one.status === 'failed')
    ) {
      failed += 1;
    }
  }
  if (exitCode !== 0 && failed === 0) failed = 1;
  return { passed: report.numPassedTests, failed };
}

/** @param {readonly Counts[]} parts @returns {Counts} */
export function sum(parts) {
  return parts.reduce(
    (all, part) => ({ passed: all.passed + part.passed, failed: all.failed + part.failed }),
    { passed: 0, failed: 0 },
  );
}

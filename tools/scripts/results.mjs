// @ts-check
/** Counts of checks, passed on between scripts as files in the cache. */
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { cache } from './steps.mjs';

/**
 * `failures`: what failed, in words, so that the end of a long log says it.
 * @typedef {{ passed: number, failed: number, failures?: readonly string[] }} Counts
 */

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
  if (!existsSync(file)) return { passed: 0, failed: 1, failures: [`${name} left no counts`] };
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
  if (!existsSync(file)) return { passed: 0, failed: 1, failures: [`${basename(file)} was not written`] };
  const report = JSON.parse(readFileSync(file, 'utf8'));
  rmSync(file);
  /** @type {string[]} */
  const failures = [];
  for (const { name, status, message, assertionResults } of report.testResults) {
    const before = failures.length;
    for (const test of assertionResults) {
      if (test.status === 'failed')
        failures.push(told(`${name} > ${test.fullName}`, test.failureMessages[0]));
    }
    if (status === 'failed' && failures.length === before) failures.push(told(name, message));
  }
  if (exitCode !== 0 && failures.length === 0) failures.push(`vitest ended with ${exitCode}`);
  return { passed: report.numPassedTests, failed: failures.length, failures };
}

/** Enough of a reason to find it again by: of a property test, what it failed for. */
const LINES = 4;

/** @param {string} what @param {string | undefined} why */
function told(what, why) {
  const lines = (why ?? '').split('\n').filter((line) => !/^\s*at /.test(line));
  const reason = lines
    .slice(0, LINES)
    .map((line) => line.trim().slice(0, 300))
    .join(' | ');
  return reason === '' ? what : `${what}: ${reason}`;
}

/** @param {readonly Counts[]} parts @returns {Counts} */
export function sum(parts) {
  return parts.reduce(
    (all, part) => ({
      passed: all.passed + part.passed,
      failed: all.failed + part.failed,
      failures: [...(all.failures ?? []), ...(part.failures ?? [])],
    }),
    { passed: 0, failed: 0 },
  );
}

import type { VerifyCheck, VerifyReport } from '@cqil/planner';
import { facts } from '../terminal/table.js';

const MARKS = { passed: 'ok', failed: 'FAILED', skipped: 'left out' } as const;

/** What was checked, a line each. */
export function renderChecks(checks: readonly VerifyCheck[]): string {
  return facts(checks.map(({ name, status, detail }) => [`${name} ${MARKS[status]}`, detail]));
}

/** A report for people. */
export function renderReport({ ok, checks, refitted = [] }: VerifyReport): string {
  const failed = checks.filter((check) => !check.ok).map(({ name }) => name);
  const refits = refitted.length === 1 ? '1 refitted matrix' : `${refitted.length} refitted matrices`;
  const verdict = ok
    ? `The rewritten model does what its plan says${refitted.length === 0 ? '' : `, with ${refits}`}.`
    : `The rewritten model is not what its plan says: ${failed.join(', ')}.`;
  return `${renderChecks(checks)}\n${verdict}`;
}

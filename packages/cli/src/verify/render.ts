import type { KindsEvaluation, VerifyCheck, VerifyReport } from '@cqil/planner';
import { facts, table } from '../terminal/table.js';

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

/** How well it predicts, a line for each kind of text. */
export function renderQuality({ kinds, excess, kl }: KindsEvaluation): string {
  const percent = (value: number) => `${value < 0 ? '−' : '+'}${Math.abs(100 * value).toFixed(1)} %`;
  return table([
    ['text', 'tokens', 'original', 'rewritten', 'perplexity', '95 % interval', 'KL', 'same best token'],
    ...kinds.map((kind) => [
      kind.kind,
      String(kind.tokens),
      (kind.perplexity / (1 + kind.excess)).toFixed(2),
      kind.perplexity.toFixed(2),
      percent(kind.excess),
      kind.excessInterval === undefined
        ? ''
        : `${percent(kind.excessInterval.low)} to ${percent(kind.excessInterval.high)}`,
      kind.kl.toFixed(4),
      `${(100 * kind.top1).toFixed(1)} %`,
    ]),
    ...(kinds.length > 1 ? [['all kinds alike', '', '', '', percent(excess), '', kl.toFixed(4), '']] : []),
  ]);
}

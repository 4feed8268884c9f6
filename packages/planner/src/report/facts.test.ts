import { describe, expect, it } from 'vitest';
import { isBest, planSummary, sections, verdict } from './facts.js';
import { madeUpReport } from './testing/made-up-report.js';

/** A change to a row of the made-up report. */
function withRow(id: string, change: object) {
  const report = madeUpReport();
  report.evaluation.rows = report.evaluation.rows.map((row) => (row.id === id ? { ...row, ...change } : row));
  return report;
}

const words = (text: string) => text.replaceAll('\u00A0', ' ');

describe('the verdict', () => {
  it('tells what is left with recovery, where it is least and most, and that nobody does better', () => {
    expect(words(verdict(madeUpReport()))).toBe(
      "With recovery, perplexity on unseen text is still 23.4 % above the original's (from +18.3 % on prose to " +
        '+28.7 % on code), and at 25.6 % of the positions its best token is another than the original' +
        "'s. None of the 5 baseline rows with at most 22 steps loses less.",
    );
  });

  it('names who does better', () => {
    const text = words(verdict(withRow('full-wide-recovered', { excess: 0.2 })));
    expect(text).toContain(
      'With at most 22 steps, less is lost by Uniform pairs, full bypass with recovery (+20.0 %).',
    );
    expect(text).not.toContain('None of');
  });

  it('does not count baselines with more steps against the plan', () => {
    expect(verdict(withRow('full-wide-recovered', { excess: 0.2, steps: 25 }))).toContain(
      'None of the 4 baseline',
    );
  });

  it('falls back to the plan without recovery, and says when nothing was evaluated', () => {
    const report = madeUpReport();
    report.evaluation.rows = report.evaluation.rows.filter(
      (row) => row.id === 'original' || row.id === 'ours',
    );
    expect(words(verdict(report))).toMatch(
      /^Without recovery, perplexity on unseen text is still 60\.0 % above .*\.$/,
    );
    report.evaluation.rows = [];
    expect(verdict(report)).toBe('The planned model was not evaluated.');
  });

  it('finds words for what is better than the original and for what is broken', () => {
    expect(words(verdict(withRow('ours-recovered', { excess: -0.02 })))).toContain(
      "is no higher than the original's, at −2.0 % (from",
    );
    expect(words(verdict(withRow('ours-recovered', { excess: 500 })))).toContain(
      "is 501 times the original's",
    );
  });
});

describe('rows', () => {
  it('stand in three sections, none lost', () => {
    const report = madeUpReport();
    const found = sections(report);
    expect(found.map(({ name, rows }) => [name, rows.length])).toEqual([
      ['The original', 1],
      ['Without recovery', 4],
      ['With recovery', 3],
    ]);
    expect(found.flatMap(({ rows }) => rows)).toHaveLength(report.evaluation.rows.length);
  });

  it('are the best only among equal steps, and never alone', () => {
    const report = withRow('skip-alternate', { excess: 0.01, steps: 24 });
    const best = (column?: string) =>
      report.evaluation.rows.filter((row) => isBest(report, row, column)).map(({ id }) => id);
    expect(best()).toEqual(['ours', 'ours-recovered']);
    expect(best('code')).toEqual(['ours', 'ours-recovered']);
    report.evaluation.rows = report.evaluation.rows.filter(({ id }) => id === 'original' || id === 'ours');
    expect(best()).toEqual([]);
  });

  it('share the mark where they are equal', () => {
    const report = withRow('uniform-recovered', { excess: Math.expm1(0.21) });
    const best = report.evaluation.rows.filter((row) => row.recovered && isBest(report, row, undefined));
    expect(best.map(({ id }) => id)).toEqual(['ours-recovered', 'uniform-recovered']);
  });
});

it('sums up a plan by its kinds of groups', () => {
  const report = madeUpReport();
  const groups = [
    { layers: [4, 5], bypass: 0 },
    { layers: [6, 7, 8], bypass: 'full' as const },
    { layers: [9, 10], bypass: 0 },
  ];
  expect(words(planSummary({ ...report, plan: { version: 1, layers: 30, groups } }))).toBe(
    '2 groups of 2 layers, d = 0 and 1 group of 3 layers, full',
  );
  expect(planSummary({ ...report, plan: { version: 1, layers: 30, groups: [] } })).toBe('no groups');
});

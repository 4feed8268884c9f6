import { sequentialSteps } from '@cqil/core';
import type { EvaluationRow, OptimizeReport } from '../optimize/document.js';
import { bypassName, excess, list, plural, share } from './format.js';

/** What page and card both say, read from the document. */

/** Rows of the table that belong together. */
export interface Section {
  readonly name: string;
  readonly rows: readonly EvaluationRow[];
}

/** The rows that are not baselines. */
export interface OwnRows {
  readonly original: EvaluationRow | undefined;
  readonly ours: EvaluationRow | undefined;
  readonly recovered: EvaluationRow | undefined;
}

export function ownRows(report: OptimizeReport): OwnRows {
  const row = (id: string) => report.evaluation.rows.find((candidate) => candidate.id === id);
  return { original: row('original'), ours: row('ours'), recovered: row('ours-recovered') };
}

/** Whether the row is the plan's, recovered or not. */
export function isOurs(row: EvaluationRow): boolean {
  return row.id === 'ours' || row.id === 'ours-recovered';
}

/** The rows as the table shows them: the original, then what was not recovered, then what was. None is left out. */
export function sections(report: OptimizeReport): Section[] {
  const { rows } = report.evaluation;
  const others = rows.filter((row) => row.id !== 'original');
  return [
    { name: 'The original', rows: rows.filter((row) => row.id === 'original') },
    { name: 'Without recovery', rows: others.filter((row) => !row.recovered) },
    { name: 'With recovery', rows: others.filter((row) => row.recovered) },
  ].filter((section) => section.rows.length > 0);
}

/** A column of the table: all kinds together (`undefined`), or one. */
export type Column = string | undefined;

/** Excess perplexity of a row in a column. */
export function excessIn(row: EvaluationRow, column: Column): number | undefined {
  return column === undefined ? row.excess : row.kinds.find(({ kind }) => kind === column)?.excess;
}

/**
 * Whether a row has the least excess of its section, among those with as many steps as the plan. A row alone is not
 * the best of anything, and neither is the original.
 */
export function isBest(report: OptimizeReport, row: EvaluationRow, column: Column): boolean {
  const steps = sequentialSteps(report.plan);
  const rivals = report.evaluation.rows.filter(
    (other) => other.id !== 'original' && other.recovered === row.recovered && other.steps === steps,
  );
  const own = excessIn(row, column);
  if (row.id === 'original' || row.steps !== steps || rivals.length < 2 || own === undefined) return false;
  return rivals.every((other) => own <= (excessIn(other, column) ?? Number.POSITIVE_INFINITY));
}

/** Whether a kind is reported beside the others and no part of their mean. */
export function isBeside(report: OptimizeReport, kind: string): boolean {
  return report.evaluation.rows.some((row) =>
    row.kinds.some((result) => result.kind === kind && result.beside === true),
  );
}

/** Mean of the share of positions with the original's best token, over the kinds that the row's excess is of. */
export function meanTop1(row: EvaluationRow): number {
  const counted = row.kinds.filter((kind) => kind.beside !== true);
  return counted.reduce((sum, kind) => sum + kind.top1, 0) / counted.length;
}

/** Right answers and items, summed over their kinds. */
export function itemTotals(row: EvaluationRow): { right: number; total: number } | undefined {
  if (row.items === undefined || row.items.length === 0) return undefined;
  return {
    right: row.items.reduce((sum, item) => sum + item.right, 0),
    total: row.items.reduce((sum, item) => sum + item.total, 0),
  };
}

/** Share of the original's sequential steps that the plan does without. */
export function stepsSaved(report: OptimizeReport): number {
  return 1 - sequentialSteps(report.plan) / report.plan.layers;
}

/** What is lost in the end, in plain words; and who does better, if anybody does. */
export function verdict(report: OptimizeReport): string {
  const { ours, recovered } = ownRows(report);
  const last = recovered ?? ours;
  if (last === undefined) return 'The planned model was not evaluated.';
  return `${lossSentence(last)} ${rivalSentence(report, last)}`.trim();
}

function lossSentence(row: EvaluationRow): string {
  const how = row.recovered ? 'With recovery,' : 'Without recovery,';
  const level = `perplexity on unseen text is ${levelOf(row.excess)}`;
  const kinds = row.kinds.toSorted((a, b) => a.excess - b.excess);
  const [least, most] = [kinds[0], kinds.at(-1)];
  if (least === undefined || most === undefined) return `${how} ${level}.`;
  const range =
    kinds.length > 1
      ? ` (from ${excess(least.excess)} on ${least.kind} to ${excess(most.excess)} on ${most.kind})`
      : '';
  const top1 = Number.isFinite(meanTop1(row))
    ? `, and at ${share(1 - meanTop1(row))} of the positions its best token is another than the original's`
    : '';
  return `${how} ${level}${range}${top1}.`;
}

/** In words, as it follows "perplexity is". */
function levelOf(value: number): string {
  const text = excess(value);
  if (value <= 0) return `no higher than the original's, at ${text}`;
  if (text.startsWith('×')) return `${text.slice(2)} times the original's`;
  return `still ${text.slice(1)} above the original's`;
}

function rivalSentence(report: OptimizeReport, row: EvaluationRow): string {
  const rivals = report.evaluation.rows.filter(
    (other) => !isOurs(other) && other.id !== 'original' && other.steps <= row.steps,
  );
  if (rivals.length === 0) return '';
  const better = rivals.filter((other) => other.excess < row.excess);
  if (better.length === 0) {
    return `None of the ${plural(rivals.length, 'baseline row')} with at most ${row.steps} steps loses less.`;
  }
  const names = better.map(
    (other) => `${other.name}${other.recovered ? ' with recovery' : ''} (${excess(other.excess)})`,
  );
  return `With at most ${row.steps} steps, less is lost by ${list(names)}.`;
}

/** `8 groups of 2 layers, d = 1` where all are alike, or how many of each there are. */
export function planSummary(report: OptimizeReport): string {
  const kinds = new Map<string, number>();
  for (const { layers, bypass } of report.plan.groups) {
    const name = `of ${layers.length} layers, ${bypassName(bypass)}`;
    kinds.set(name, (kinds.get(name) ?? 0) + 1);
  }
  if (kinds.size === 0) return 'no groups';
  return list([...kinds].map(([name, number]) => `${plural(number, 'group')} ${name}`));
}

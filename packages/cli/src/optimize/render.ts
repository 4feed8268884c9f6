import type { OptimizeReport } from '@cqil/planner';
import { table } from '../terminal/table.js';

/** Each judged model a line: its steps, and how much more perplexity it has than the original, by kind of text. */
export function renderRows(report: OptimizeReport): string {
  const { kinds, rows } = report.evaluation;
  const percent = (value: number) => `${value < 0 ? '−' : '+'}${Math.abs(100 * value).toFixed(1)} %`;
  return table([
    ['excess perplexity', 'steps', 'repaired', ...kinds, 'mean'],
    ...rows.map((row) => [
      row.name,
      String(row.steps),
      row.recovered ? 'yes' : '',
      ...kinds.map((kind) => {
        const found = row.kinds.find((result) => result.kind === kind);
        if (found === undefined) return '';
        return row.id === 'original' ? `(${found.perplexity.toFixed(2)})` : percent(found.excess);
      }),
      row.id === 'original' ? '' : percent(row.excess),
    ]),
  ]);
}

import { sequentialSteps } from '@cqil/core';
import type { EvaluationRow, OptimizeReport } from '../../optimize/document.js';
import { isOurs } from '../facts.js';
import { excess, plural } from '../format.js';
import { html, type Markup } from '../html.js';
import { excessDomain, excessScale, excessTicks, linear, spread, wholeTicks } from '../scale.js';
import { type Frame, key, marker, polyline, type Shape, svg, xAxis, yAxis } from './svg.js';

const HEIGHT = 400;
const LABEL_GAP = 14;

/** A row of the evaluation as a lettered point. */
export interface LetteredRow {
  readonly letter: string;
  readonly row: EvaluationRow;
}

/** The rows with their letters: A to Z, then AA. */
export function lettered(report: OptimizeReport): LetteredRow[] {
  return report.evaluation.rows.map((row, i) => ({ letter: letterOf(i), row }));
}

export function letterOf(index: number): string {
  const last = String.fromCharCode(65 + (index % 26));
  return index < 26 ? last : letterOf(Math.floor(index / 26) - 1) + last;
}

/**
 * Excess perplexity over sequential steps: the best plan found for each number of steps as a line of steps, and every
 * row of the evaluation as a lettered point. Letters that would touch are moved apart along a thin line.
 *
 * @param width the drawing's, in pixels; the page holds a wide and a narrow one
 */
export function frontChart(report: OptimizeReport, width: number): Markup {
  const frame: Frame = { left: 68, right: width - 28, top: 12, bottom: HEIGHT - 44 };
  const front = report.front.toSorted((a, b) => a.steps - b.steps);
  const rows = lettered(report);
  const allSteps = [...front.map(({ steps }) => steps), ...rows.map(({ row }) => row.steps)];
  const [low, high] = [Math.min(...allSteps), Math.max(...allSteps)];
  const domain = excessDomain([...front.map((point) => point.excess), ...rows.map(({ row }) => row.excess)]);
  const x = linear([low, high], [frame.left + 14, frame.right - 14]);
  const y = excessScale(domain, [frame.bottom, frame.top]);
  const own = sequentialSteps(report.plan);
  const staircase = front.flatMap((point, i) => {
    const next = front[i + 1];
    const here = [x(point.steps), y(point.excess)] as const;
    return next === undefined ? [here] : [here, [x(next.steps), y(point.excess)] as const];
  });
  return svg(
    {
      id: `front-${width}`,
      title: 'Excess perplexity by number of sequential steps',
      description: `The front has ${plural(front.length, 'point')}, and ${plural(rows.length, 'row')} of the evaluation are shown with it. All values are in the tables below.`,
    },
    [width, HEIGHT],
    yAxis(
      frame,
      excessTicks(domain, y, 24).map((tick) => ({
        at: y(tick),
        label: tick === 0 ? '0' : excess(tick).replace('.0', ''),
      })),
    ),
    xAxis(
      frame,
      wholeTicks(low, high, width < 500 ? 8 : 20).map((tick) => ({ at: x(tick), label: String(tick) })),
      'sequential steps',
    ),
    html`<path class="line s0" d="${polyline(staircase)}"/>`,
    front.map((point) => {
      const [px, py] = [x(point.steps), y(point.excess)];
      const ring = point.steps === own && html`<circle class="ring" cx="${px}" cy="${py}" r="8"/>`;
      const text = `${plural(point.steps, 'step')}: ${excess(point.excess)} on development text`;
      return html`${ring}${marker('circle', px, py, 8, 's0', text)}`;
    }),
    columns(rows).map((column) => points(column, x, y)),
  );
}

/** Rows with equal steps stand in one column and share its labels' room. */
function columns(rows: readonly LetteredRow[]): LetteredRow[][] {
  const bySteps = new Map<number, LetteredRow[]>();
  for (const entry of rows) bySteps.set(entry.row.steps, [...(bySteps.get(entry.row.steps) ?? []), entry]);
  return [...bySteps.values()];
}

function points(
  column: readonly LetteredRow[],
  x: (steps: number) => number,
  y: (excess: number) => number,
): Markup {
  const labels = spread(
    column.map(({ row }) => y(row.excess)),
    LABEL_GAP,
  );
  return html`${column.map(({ letter, row }, i) => {
    const [px, py, ly] = [x(row.steps), y(row.excess), labels[i]!];
    const moved = Math.abs(ly - py) > 1;
    const lead = moved && html`<path class="lead" d="M${px + 5} ${py}L${px + 15} ${ly}"/>`;
    const { shape, className } = rowMark(row);
    const text = `${letter}: ${row.name}${row.recovered ? ', with recovery' : ''}, ${plural(row.steps, 'step')}: ${excess(row.excess)}`;
    return html`${lead}${marker(shape, px, py, 9, className, text)}<text class="letter" x="${px + (moved ? 17 : 9)}" y="${ly + 4}">${letter}</text>`;
  })}`;
}

/** Ours are diamonds, baselines squares, the original a triangle; filled where recovered. */
export function rowMark(row: EvaluationRow): { readonly shape: Shape; readonly className: string } {
  if (row.id === 'original') return { shape: 'triangle', className: 's2' };
  const filling = row.recovered ? '' : ' hollow';
  return isOurs(row)
    ? { shape: 'diamond', className: `s1${filling}` }
    : { shape: 'square', className: `s3${filling}` };
}

/** A marker for the legend and for tables. */
export function rowKey(row: EvaluationRow): Markup {
  const { shape, className } = rowMark(row);
  return key(shape, className);
}

import type { OptimizeReport } from '../../optimize/document.js';
import { excess, interval } from '../format.js';
import { html, type Markup } from '../html.js';
import { excessDomain, excessScale, excessTicks } from '../scale.js';
import { rowMark } from './front.js';
import { type Frame, marker, svg, xAxis } from './svg.js';

const WIDTH = 344;
const ROW = 34;
const LONGEST_NAME = 40;

/** Excess perplexity of each row on one kind of text, with its interval; the scale is the same for all kinds. */
export function intervalChart(report: OptimizeReport, kind: string): Markup {
  const rows = report.evaluation.rows.filter((row) => row.id !== 'original');
  const every = rows.flatMap((row) => row.kinds);
  const domain = excessDomain(
    every.flatMap((result) => [
      result.excess,
      ...(result.excessInterval === undefined ? [] : [result.excessInterval.low, result.excessInterval.high]),
    ]),
  );
  const height = rows.length * ROW + 40;
  const frame: Frame = { left: 12, right: WIDTH - 12, top: 4, bottom: height - 24 };
  const x = excessScale(domain, [frame.left + 4, frame.right - 4]);
  const results = rows.flatMap((row, i) => {
    const result = row.kinds.find((candidate) => candidate.kind === kind);
    return result === undefined ? [] : [{ row, result, top: frame.top + i * ROW }];
  });
  const ticks = excessTicks(domain, x, 60);
  return svg(
    {
      id: `intervals-${report.evaluation.kinds.indexOf(kind)}`,
      title: `Excess perplexity on ${kind} text`,
      description: results
        .map(({ row, result }) => {
          const range = interval(result.excessInterval, excess);
          return `${row.name}${row.recovered ? ', with recovery' : ''}: ${excess(result.excess)}${range === '' ? '' : `, ${range}`}.`;
        })
        .join(' '),
    },
    [WIDTH, height],
    ticks.map(
      (tick) =>
        html`<path class="${tick === 0 ? 'base' : 'grid'}" d="M${x(tick)} ${frame.top}V${frame.bottom}"/>`,
    ),
    xAxis(
      frame,
      ticks.map((tick) => ({ at: x(tick), label: tick === 0 ? '0' : excess(tick).replace('.0', '') })),
    ),
    results.map(({ row, result, top }) => {
      const { shape, className } = rowMark(row);
      const colour = className.replace(' hollow', '');
      const line = top + 24;
      const range = result.excessInterval;
      const whisker =
        range &&
        html`<path class="whisker ${colour}" d="M${x(range.low)} ${line}H${x(range.high)}M${x(range.low)} ${line - 4}v8M${x(range.high)} ${line - 4}v8"/>`;
      const suffix = row.recovered ? ', recovered' : '';
      const name = shortened(row.name, LONGEST_NAME - suffix.length) + suffix;
      return html`<text class="label" x="${frame.left + 10}" y="${top + 12}">${name}</text><text class="label value" x="${frame.right - 4}" y="${top + 12}" text-anchor="end">${excess(result.excess)}</text>${whisker}${marker(shape, x(result.excess), line, 8, className)}`;
    }),
  );
}

/** Names too long for the drawing; tables have them whole. */
function shortened(name: string, longest: number): string {
  const characters = [...name];
  return characters.length <= longest ? name : `${characters.slice(0, longest - 1).join('')}…`;
}

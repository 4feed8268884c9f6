import { sequentialSteps } from '@cqil/core';
import type { EvaluationRow, OptimizeReport } from '../../optimize/document.js';
import { rowKey } from '../charts/front.js';
import { intervalChart } from '../charts/intervals.js';
import { type Column, excessIn, isBeside, isBest, itemTotals, meanTop1, sections } from '../facts.js';
import { count, excess, interval, nats, perplexity, share } from '../format.js';
import { html, type Markup, type Part } from '../html.js';
import { folded, table, twoLines } from '../table.js';
import { figure, type Section } from './section.js';

/** All rows on the texts that nothing was fitted to or chosen by. */
export function evaluationSection(report: OptimizeReport): Section | undefined {
  if (report.evaluation.rows.length === 0) return undefined;
  return {
    id: 'evaluation',
    title: 'What is lost, on unseen text',
    body: html`<p>Excess perplexity is perplexity over the original's, minus 1, on text that was used neither to choose the plan nor to fit anything; over all kinds it is the geometric mean. Below it stands the 95 % interval. <span class="best">★</span> marks the least of those with ${String(sequentialSteps(report.plan))} steps, once without and once with recovery.</p>${mainTable(report)}${footnotes(report)}${charts(report)}${everything(report)}`,
  };
}

function mainTable(report: OptimizeReport): Markup {
  const { kinds, rows } = report.evaluation;
  const hasGeneration = rows.some((row) => row.generation !== undefined);
  const hasItems = rows.some((row) => itemTotals(row) !== undefined);
  return table({
    id: 'rows',
    caption: 'Excess perplexity by kind of text',
    columns: [
      { name: 'Model', text: true },
      { name: 'Steps' },
      { name: 'All kinds' },
      ...kinds.map((kind) => ({ name: kindName(report, kind) })),
      { name: 'Same best token' },
      ...(hasGeneration ? [{ name: 'Same tokens generated' }] : []),
      ...(hasItems ? [{ name: 'Items right' }] : []),
    ],
    bodies: sections(report).map(({ name, rows: own }) => ({
      name,
      rows: own.map((row) => [
        html`${rowKey(row)} ${row.name}${noteMark(report, row)}`,
        String(row.steps),
        excessCell(report, row, undefined),
        ...kinds.map((kind) => excessCell(report, row, kind)),
        row.id === 'original' ? '' : share(meanTop1(row)),
        ...(hasGeneration ? [generationCell(row)] : []),
        ...(hasItems ? [itemsCell(row)] : []),
      ]),
    })),
  });
}

/** A kind that is no part of the mean is told apart where it is named. */
function kindName(report: OptimizeReport, kind: string): Part {
  return isBeside(report, kind) ? twoLines(kind, 'not in the mean') : kind;
}

function excessCell(report: OptimizeReport, row: EvaluationRow, column: Column): Part {
  const value = excessIn(row, column);
  const result = row.kinds.find(({ kind }) => kind === column);
  if (row.id === 'original')
    return result === undefined ? '0' : twoLines('0', `perplexity ${perplexity(result.perplexity)}`);
  if (value === undefined) return '–';
  const number = isBest(report, row, column)
    ? html`<strong class="best"><span aria-hidden="true">★ </span>${excess(value)}<span class="unseen"> (least)</span></strong>`
    : excess(value);
  return twoLines(number, interval(result?.excessInterval, excess));
}

function generationCell({ generation }: EvaluationRow): Part {
  if (generation === undefined) return '';
  return twoLines(
    Number(generation.agreed.toFixed(1)).toString(),
    `of ${generation.length}, ${generation.prompts} prompts`,
  );
}

function itemsCell(row: EvaluationRow): Part {
  const totals = itemTotals(row);
  return totals === undefined ? '' : `${count(totals.right)} of ${count(totals.total)}`;
}

function noteNumber(report: OptimizeReport, row: EvaluationRow): number | undefined {
  if (row.note === undefined) return undefined;
  return report.evaluation.rows.filter((other) => other.note !== undefined).indexOf(row) + 1;
}

function noteMark(report: OptimizeReport, row: EvaluationRow): Part {
  const number = noteNumber(report, row);
  return number !== undefined && html`<sup><a href="#note-${String(number)}">${String(number)}</a></sup>`;
}

function footnotes(report: OptimizeReport): Part {
  const noted = report.evaluation.rows.filter((row) => row.note !== undefined);
  if (noted.length === 0) return undefined;
  return html`<ol class="footnotes">${noted.map((row, i) => html`<li id="note-${String(i + 1)}">${row.name}: ${row.note}</li>`)}</ol>`;
}

function charts(report: OptimizeReport): Part {
  if (report.evaluation.rows.every((row) => row.id === 'original')) return undefined;
  return figure(
    html`<div class="panels">${report.evaluation.kinds.map((kind) => html`<div><h3>${kindName(report, kind)}</h3>${intervalChart(report, kind)}</div>`)}</div>`,
    html`Excess perplexity with 95 % intervals, on one scale that is logarithmic in the perplexity ratio. Diamonds are this plan, squares baselines; filled with recovery, hollow without.`,
  );
}

/** The numbers that the main table leaves out. */
function everything(report: OptimizeReport): Markup {
  const { kinds, rows } = report.evaluation;
  const perKind = kinds.map((kind, i) =>
    table({
      id: `kind-${i}`,
      caption: `Every number on ${kind} text`,
      columns: [
        { name: 'Model', text: true },
        { name: 'Tokens' },
        { name: 'Perplexity' },
        { name: 'Excess' },
        { name: 'KL, nats a token' },
        { name: 'Same best token' },
      ],
      bodies: sections(report).map(({ name, rows: own }) => ({
        name,
        rows: own.flatMap((row) => {
          const result = row.kinds.find((candidate) => candidate.kind === kind);
          if (result === undefined) return [];
          return [
            [
              row.name,
              count(result.tokens),
              twoLines(perplexity(result.perplexity), interval(result.interval, perplexity)),
              row.id === 'original'
                ? '0'
                : twoLines(excess(result.excess), interval(result.excessInterval, excess)),
              twoLines(nats(result.kl), interval(result.klInterval, nats)),
              share(result.top1),
            ],
          ];
        }),
      })),
    }),
  );
  const itemKinds = [...new Set(rows.flatMap((row) => (row.items ?? []).map(({ kind }) => kind)))];
  const items =
    itemKinds.length > 0 &&
    table({
      id: 'items',
      caption: 'Right answers to the built-in items, by kind',
      columns: [{ name: 'Model', text: true }, ...itemKinds.map((kind) => ({ name: kind }))],
      bodies: sections(report).map(({ name, rows: own }) => ({
        name,
        rows: own
          .filter((row) => row.items !== undefined)
          .map((row) => [
            row.name,
            ...itemKinds.map((kind) => {
              const item = row.items?.find((candidate) => candidate.kind === kind);
              return item === undefined ? '–' : `${item.right} of ${item.total}`;
            }),
          ]),
      })),
    });
  return folded('Every number, by kind of text', perKind, items);
}

import type { Plan } from '@cqil/core';
import { html, type Markup } from '../html.js';
import { type Scale, wholeTicks } from '../scale.js';
import { type Described, svg } from './svg.js';

/**
 * Lower ends of the steps of colour. They are the same for every model, so that pages can be compared, and closer
 * together near 1, where it is decided which layers can be grouped.
 */
const EDGES = [Number.NEGATIVE_INFINITY, 0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99];

const SIZE = 460;
const LEFT = 44;
const TOP = 8;
const WIDTH = LEFT + SIZE + 8;
const HEIGHT = TOP + SIZE + 44;

/** The step of colour of a cosine: 0 to 9. */
export function heatStep(cosine: number): number {
  return EDGES.findLastIndex((edge) => cosine >= edge);
}

/**
 * The cosine of all pairs of layer inputs. Cells of one colour are one path; the groups of the plan are framed. The
 * page's script tells the value under the pointer or the cursor, from `data-values`.
 *
 * @param similarity `[n, n]`, entry i the input of layer i, the last the output of the last layer
 */
export function heatmap(
  described: Described,
  similarity: readonly (readonly number[])[],
  plan: Plan,
): Markup {
  const n = similarity.length;
  const cell = SIZE / n;
  const values = similarity.map((row) => row.map((value) => Number(value.toFixed(4))).join(' ')).join(';');
  const ticks = wholeTicks(0, n - 1, 9);
  const drawing = svg(
    described,
    [WIDTH, HEIGHT],
    html`<rect class="h0" x="${LEFT}" y="${TOP}" width="${SIZE}" height="${SIZE}"/>`,
    runs(similarity).map((path, step) => path !== '' && html`<path class="h${step}" d="${path}"/>`),
    frames(plan, n, (index) => index * cell),
    html`<rect class="cursor" x="${LEFT}" y="${TOP}" width="${cell}" height="${cell}" visibility="hidden"/>`,
    ticks.map(
      (index) =>
        html`<text class="tick" x="${LEFT - 7}" y="${TOP + (index + 0.5) * cell + 4}" text-anchor="end">${String(index)}</text><text class="tick" x="${LEFT + (index + 0.5) * cell}" y="${TOP + SIZE + 17}" text-anchor="middle">${String(index)}</text>`,
    ),
    html`<text class="tick" x="${LEFT + SIZE}" y="${HEIGHT - 6}" text-anchor="end">input of layer (${String(n - 1)}: the output of the last)</text>`,
  );
  return html`<div class="heat" tabindex="0" role="group" aria-label="Similarity of layer inputs, cell by cell: arrow keys move, the value is told below" data-values="${values}" data-left="${LEFT}" data-top="${TOP}" data-cell="${String(cell)}">${drawing}</div><p class="readout" aria-live="polite">Point at a cell, or move with the arrow keys, to read its value.</p>`;
}

/** For each step of colour one path of all its cells; neighbours in a row are one rectangle. */
function runs(similarity: readonly (readonly number[])[]): string[] {
  const cell = SIZE / similarity.length;
  const paths = EDGES.map(() => '');
  const at = (value: number) => Number(value.toFixed(2));
  for (const [i, row] of similarity.entries()) {
    const [y, bottom] = [at(TOP + i * cell), at(TOP + (i + 1) * cell)];
    for (let start = 0; start < row.length; ) {
      const step = heatStep(row[start]!);
      let end = start + 1;
      while (end < row.length && heatStep(row[end]!) === step) end++;
      if (step > 0)
        paths[step] +=
          `M${at(LEFT + start * cell)} ${y}H${at(LEFT + end * cell)}V${bottom}H${at(LEFT + start * cell)}z`;
      start = end;
    }
  }
  return paths;
}

/** The inputs that a group replaces by one: a square on the diagonal from its first layer to its last. */
function frames(plan: Plan, n: number, scale: Scale): Markup[] {
  return plan.groups
    .map(({ layers }) => ({ from: layers[0]!, to: layers.at(-1)! + 1 }))
    .filter(({ to }) => to <= n)
    .map(({ from, to }) => {
      const [at, size] = [scale(from), scale(to) - scale(from)];
      const box = html`x="${LEFT + at}" y="${TOP + at}" width="${size}" height="${size}"`;
      return html`<rect class="halo" ${box}/><rect class="frame" ${box}/>`;
    });
}

/** The steps of colour with their ranges. */
export function heatLegend(): Markup {
  const name = (i: number) => {
    if (i === 0) return `under ${EDGES[1]}`;
    return i === EDGES.length - 1 ? `${EDGES[i]} to 1` : `${EDGES[i]} to ${EDGES[i + 1]}`;
  };
  return html`<ul class="legend">${EDGES.map(
    (_, i) =>
      html`<li><svg class="key" viewBox="0 0 14 14" width="14" height="14" aria-hidden="true"><rect class="swatch h${i}" x="0.5" y="0.5" width="13" height="13"/></svg>${name(i)}</li>`,
  )}<li><svg class="key" viewBox="0 0 14 14" width="14" height="14" aria-hidden="true"><rect class="frame" x="1.5" y="1.5" width="11" height="11"/></svg>a group of the plan</li></ul>`;
}

import { sequentialSteps } from '@cqil/core';
import type { OptimizeReport } from '../../optimize/document.js';
import { bypasses, candidateExcess, chosen, costChart, costLegend, groupSizes } from '../charts/costs.js';
import { frontChart, lettered, rowKey } from '../charts/front.js';
import { bypassName, excess, layerRange, nats, planText, plural } from '../format.js';
import { html, type Part } from '../html.js';
import { folded, table } from '../table.js';
import { figure, type Section } from './section.js';

/** The best plan for each number of steps, and where the rows of the evaluation stand. */
export function frontSection(report: OptimizeReport): Section | undefined {
  const { front } = report;
  if (front.length === 0) return undefined;
  const own = sequentialSteps(report.plan);
  return {
    id: 'front',
    title: 'Steps against quality',
    body: html`${figure(
      html`<div class="wide">${frontChart(report, 900)}</div><div class="narrow">${frontChart(report, 344)}</div>`,
      html`The line is the best plan found for each number of steps, measured as a whole on development text, without recovery; the ring is the number of steps that was chosen. Lettered points are the rows of the evaluation, on unseen text: the two are near each other, not the same measurement. Upwards is worse; the scale is logarithmic in the perplexity ratio.`,
    )}${rowLegend(report)}${folded(
      'The front as a table',
      table({
        id: 'front-points',
        caption: 'The best plan found for each number of steps, on development text',
        columns: [
          { name: 'Steps' },
          { name: 'Excess' },
          { name: 'KL, nats a token' },
          { name: 'Groups', text: true },
        ],
        bodies: [
          {
            rows: front.map((point) => [
              point.steps === own
                ? html`${String(point.steps)} <span class="quiet">(chosen)</span>`
                : String(point.steps),
              excess(point.excess),
              nats(point.kl),
              planText(point.plan),
            ]),
          },
        ],
      }),
    )}`,
  };
}

function rowLegend(report: OptimizeReport): Part {
  const rows = lettered(report);
  if (rows.length === 0) return undefined;
  return html`<ul class="legend rows">${rows.map(
    ({ letter, row }) =>
      html`<li>${rowKey(row)}<b>${letter}</b> ${row.name}${row.recovered && ', with recovery'}: ${String(row.steps)} steps, ${row.id === 'original' ? '0' : excess(row.excess)}</li>`,
  )}</ul>`;
}

/** What one group alone costs, by place, size and bypass. */
export function costsSection(report: OptimizeReport): Section | undefined {
  const { candidates } = report;
  if (candidates.length === 0) return undefined;
  const sizes = groupSizes(candidates);
  return {
    id: 'costs',
    title: 'What one group costs, by place',
    body: html`<p>Each point is the model with this one group and all else as it was, on development text: the mean KL divergence of its predictions from the original's, in nats a token. Costs of several groups do not simply add up.</p>${figure(
      html`${costLegend(candidates)}<div class="panels">${sizes.map(
        (size) => html`<div><h3>Groups of ${String(size)} layers</h3>${costChart(report, size)}</div>`,
      )}</div>`,
      html`KL upwards on a logarithmic scale that all sizes share; a lower point is a cheaper group.`,
    )}${folded(`All ${plural(candidates.length, 'candidate')} as a table`, candidateTable(report))}`,
  };
}

function candidateTable(report: OptimizeReport): Part {
  const { candidates, plan } = report;
  const order = bypasses(candidates);
  return table({
    id: 'candidates',
    caption: 'Cost of one group alone, on development text',
    columns: [
      { name: 'Layers', text: true },
      { name: 'Bypass', text: true },
      { name: 'KL, nats a token' },
      { name: 'Cross-entropy, nats a token' },
      { name: 'Excess perplexity' },
      { name: 'In the plan', text: true },
    ],
    bodies: groupSizes(candidates).map((size) => ({
      name: `Groups of ${size} layers`,
      rows: candidates
        .filter(({ layers }) => layers.length === size)
        .sort((a, b) => a.layers[0]! - b.layers[0]! || order.indexOf(a.bypass) - order.indexOf(b.bypass))
        .map((candidate) => [
          layerRange(candidate.layers),
          bypassName(candidate.bypass),
          nats(candidate.kl),
          `${candidate.crossEntropy < 0 ? '' : '+'}${nats(candidate.crossEntropy)}`,
          candidateExcess(candidate),
          chosen(plan, candidate) ? 'yes' : '',
        ]),
    })),
  });
}

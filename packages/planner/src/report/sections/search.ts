import { sequentialSteps } from '@cqil/core';
import type { OptimizeReport } from '../../optimize/document.js';
import { bypasses, chosen, costChart, costLegend, groupSizes } from '../charts/costs.js';
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

/** A row for each run of layers, a column for each bypass: what is compared stands side by side. */
function candidateTable(report: OptimizeReport): Part {
  const { candidates } = report;
  const distances = bypasses(candidates);
  return table({
    id: 'candidates',
    caption:
      'KL of one group alone and, in brackets, its change of cross-entropy, both in nats a token on development text; ✓ marks what is in the plan',
    columns: [{ name: 'Layers', text: true }, ...distances.map((bypass) => ({ name: bypassName(bypass) }))],
    bodies: groupSizes(candidates).map((size) => ({
      name: `Groups of ${size} layers`,
      rows: runsOf(candidates, size).map((run) => [
        layerRange(run[0]!.layers),
        ...distances.map((bypass) => {
          const candidate = run.find((own) => own.bypass === bypass);
          return candidate === undefined ? '' : candidateCell(report, candidate);
        }),
      ]),
    })),
  });
}

type Candidate = OptimizeReport['candidates'][number];

/** The candidates of one size with the same layers, by first layer. */
function runsOf(candidates: readonly Candidate[], size: number): Candidate[][] {
  const runs = new Map<number, Candidate[]>();
  for (const candidate of candidates) {
    if (candidate.layers.length !== size) continue;
    const first = candidate.layers[0]!;
    runs.set(first, [...(runs.get(first) ?? []), candidate]);
  }
  return [...runs].sort(([a], [b]) => a - b).map(([, run]) => run);
}

function candidateCell({ plan }: OptimizeReport, candidate: Candidate): Part {
  const change = `${candidate.crossEntropy < 0 ? '' : '+'}${nats(candidate.crossEntropy)}`;
  const text = html`${nats(candidate.kl)} <span class="quiet">(${change})</span>`;
  return chosen(plan, candidate)
    ? html`<strong>✓ ${text}</strong><span class="unseen"> in the plan</span>`
    : text;
}

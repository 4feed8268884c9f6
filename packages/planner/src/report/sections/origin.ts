import { stringifyPlan } from '@cqil/core';
import type { OptimizeReport } from '../../optimize/document.js';
import { count, duration } from '../format.js';
import { html, type Markup, type Part } from '../html.js';
import { folded, table } from '../table.js';
import type { Section } from './section.js';

const BAR = 120;

/** Where the numbers come from: model, texts, machine, time, command. */
export function originSection(report: OptimizeReport): Section {
  return {
    id: 'origin',
    title: 'Where this comes from',
    body: html`${modelTable(report)}${textTable(report)}${timingTable(report)}<h3>Made again by</h3><div class="command"><pre tabindex="0"><code id="command">${report.command}</code></pre><button type="button" data-copy="command" hidden>Copy</button></div>${folded('The plan as JSON', html`<pre tabindex="0"><code>${stringifyPlan(report.plan)}</code></pre>`)}`,
  };
}

function modelTable(report: OptimizeReport): Markup {
  const { model, result } = report;
  const rows: Part[][] = [
    ['Model', model.name],
    ...(model.repository === undefined ? [] : [['Repository', model.repository]]),
    ...(model.license === undefined ? [] : [['Licence', model.license]]),
    ['Graph', `${model.graph} (${model.dtype})`],
    ['SHA-256 of the graph', hash(model.sha256)],
    ['Shape', `${count(model.layers)} layers, width ${count(model.hidden)}`],
    ...(result === undefined
      ? []
      : [
          ['Graph written', result.graph],
          ['SHA-256 of the graph written', hash(result.sha256)],
        ]),
    [
      'Made by',
      [report.tool, ...(report.versions ?? [])].map(({ name, version }) => `${name} ${version}`).join(', '),
    ],
    ['Made on', report.machine],
  ];
  return table({
    id: 'model',
    caption: 'Model and tools',
    columns: [
      { name: 'What', text: true },
      { name: 'Value', text: true },
    ],
    bare: true,
    bodies: [{ rows }],
  });
}

function textTable({ texts }: OptimizeReport): Part {
  const sets = [
    { name: 'Calibration: what was probed and fitted to', texts: texts.calibration },
    { name: 'Development: what the plan was chosen by', texts: texts.development },
    { name: 'Evaluation: what nothing was fitted to or chosen by', texts: texts.evaluation },
  ].filter((set) => set.texts.length > 0);
  if (sets.length === 0) return undefined;
  return table({
    id: 'texts',
    caption: 'Texts',
    columns: [
      { name: 'Kind', text: true },
      { name: 'Text', text: true },
      { name: 'Tokens' },
      { name: 'SHA-256', text: true },
    ],
    bodies: sets.map((set) => ({
      name: set.name,
      rows: set.texts.map((text) => [text.kind, text.spec, count(text.tokens), hash(text.sha256)]),
    })),
  });
}

function timingTable({ timings }: OptimizeReport): Part {
  if (timings.length === 0) return undefined;
  const total = timings.reduce((sum, { seconds }) => sum + seconds, 0);
  const most = Math.max(...timings.map(({ seconds }) => seconds), 1e-9);
  return table({
    id: 'timings',
    caption: 'Time taken',
    columns: [
      { name: 'Step', text: true },
      { name: 'Time' },
      { name: html`<span class="unseen">As bars</span>`, text: true },
    ],
    bodies: [
      {
        rows: timings.map(({ step, seconds }) => [
          step,
          duration(seconds),
          html`<svg class="bars" viewBox="0 0 ${BAR} 12" width="${BAR}" height="12" aria-hidden="true"><rect class="after" x="0" y="2" width="${Math.max(1, (seconds / most) * BAR)}" height="8"/></svg>`,
        ]),
      },
      { rows: [[html`<strong>In all</strong>`, html`<strong>${duration(total)}</strong>`, '']] },
    ],
  });
}

function hash(value: string): Markup {
  return html`<code class="hash">${value}</code>`;
}

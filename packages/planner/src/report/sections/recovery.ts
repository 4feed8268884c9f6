import type { OptimizeReport } from '../../optimize/document.js';
import { excess, layerRange, nats, plural, round } from '../format.js';
import { html, type Markup } from '../html.js';
import { table } from '../table.js';
import type { Section } from './section.js';

type Step = OptimizeReport['recovery'][number];

const BAR = 150;

const MATRICES: Readonly<Record<string, string>> = {
  down: "the FFN's output (down)",
  o: "the attention's output (o)",
  qkv: 'queries, keys and values (qkv)',
  'gate-up': "the FFN's input (gate, up)",
};

/** What the refit gave, matrix by matrix, refusals with their reason. */
export function recoverySection(report: OptimizeReport): Section | undefined {
  const steps = report.recovery;
  if (steps.length === 0) return undefined;
  const kept = steps.filter((step) => step.kept).length;
  const most = Math.max(
    ...steps.flatMap(({ before, after }) => [before, after]).filter(Number.isFinite),
    1e-9,
  );
  return {
    id: 'recovery',
    title: 'Recovery, step by step',
    body: html`<p>After grouping, matrices were refitted in closed form, in the order of the stream, to give back what the layers in sequence would have added. ${plural(kept, 'refit')} of ${String(steps.length)} ${kept === 1 ? 'was' : 'were'} kept. Error is the squared error on held-out calibration tokens over the variance of what was to be met: 0 is perfect.</p>${table(
      {
        id: 'recovery-steps',
        caption: 'Held-out error before and after each refit',
        columns: [
          { name: 'Layers', text: true },
          { name: 'Matrix', text: true },
          { name: 'λ' },
          { name: 'Before' },
          { name: 'After' },
          { name: html`<span class="unseen">As bars</span>`, text: true },
          { name: 'Change' },
          { name: 'Outcome', text: true },
        ],
        bodies: [
          {
            rows: steps.map((step) => [
              layerRange(step.layers),
              MATRICES[step.matrix] ?? step.matrix,
              step.lambda === undefined ? '–' : round(step.lambda),
              nats(step.before),
              nats(step.after),
              bars(step, most),
              step.before > 0 ? excess(step.after / step.before - 1) : '–',
              step.kept
                ? 'kept'
                : html`<strong>✕ refused</strong>${step.reason !== undefined && html`: ${step.reason}`}`,
            ]),
          },
        ],
      },
    )}<p class="legend">${barKey('before')}before ${barKey('after')}after, kept ${barKey('refused')}after, refused</p>`,
  };
}

/** Before above, after below; the text of the row has both numbers. */
function bars({ before, after, kept }: Step, most: number): Markup {
  const width = (value: number) => Math.max(1, (value / most) * BAR);
  return html`<svg class="bars" viewBox="0 0 ${BAR + 2} 20" width="${BAR + 2}" height="20" aria-hidden="true"><rect class="before" x="1" y="2" width="${width(before)}" height="7"/><rect class="${kept ? 'after' : 'refused'}" x="1" y="11" width="${width(after)}" height="7"/></svg>`;
}

function barKey(className: string): Markup {
  return html`<svg class="key" viewBox="0 0 18 12" width="18" height="12" aria-hidden="true"><rect class="${className}" x="1" y="3" width="16" height="7"/></svg>`;
}

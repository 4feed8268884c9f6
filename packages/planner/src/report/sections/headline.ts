import { sequentialSteps } from '@cqil/core';
import type { OptimizeReport } from '../../optimize/document.js';
import { meanTop1, ownRows, planSummary, stepsSaved, verdict } from '../facts.js';
import { excess, moment, perplexity, share } from '../format.js';
import { html, type Markup } from '../html.js';

/** The model, what was asked for, and in a few numbers what came out. */
export function headline(report: OptimizeReport): Markup {
  const { model } = report;
  const { ours, recovered } = ownRows(report);
  const steps = sequentialSteps(report.plan);
  const last = recovered ?? ours;
  const tiles = [
    tile(
      'Sequential steps',
      `${model.layers} → ${steps}`,
      `${share(stepsSaved(report))} fewer; ${planSummary(report)}`,
    ),
    ours && tile('Excess perplexity without recovery', excess(ours.excess), kindsLine(ours.kinds)),
    recovered &&
      tile('Excess perplexity with recovery', excess(recovered.excess), kindsLine(recovered.kinds)),
    last &&
      Number.isFinite(meanTop1(last)) &&
      tile(
        'Same best token as the original',
        share(meanTop1(last)),
        last.recovered ? 'with recovery, mean over kinds' : 'mean over kinds',
      ),
  ];
  return html`<header><p class="kicker">CQIL report, ${moment(report.created)}</p><h1>${model.name}</h1><p class="lead">${verdict(report)}</p><dl class="tiles">${tiles}</dl><p class="quiet">Asked for: ${report.target}.</p></header>`;
}

function tile(name: string, value: string, below: string): Markup {
  return html`<div><dt>${name}</dt><dd><strong>${value}</strong><small>${below}</small></dd></div>`;
}

function kindsLine(
  kinds: readonly { readonly kind: string; readonly excess: number; readonly perplexity: number }[],
) {
  return kinds
    .map((result) => `${result.kind} ${excess(result.excess)} (${perplexity(result.perplexity)})`)
    .join(', ');
}

import { type Bypass, effectiveBypass, type Plan, type PlanGroup } from '@cqil/core';
import type { OptimizeReport } from '../../optimize/document.js';
import { bypassName, layerRange, nats, round } from '../format.js';
import { html, type Markup } from '../html.js';
import { linear, logarithmic, logTicks, wholeTicks } from '../scale.js';
import {
  type Frame,
  key,
  marker,
  polyline,
  seriesClass,
  seriesDash,
  seriesShape,
  svg,
  xAxis,
  yAxis,
} from './svg.js';

type Candidate = OptimizeReport['candidates'][number];

const WIDTH = 344;
const HEIGHT = 246;
const FRAME: Frame = { left: 48, right: WIDTH - 10, top: 10, bottom: HEIGHT - 40 };

/** Sizes of group that were measured, ascending. */
export function groupSizes(candidates: readonly Candidate[]): number[] {
  return [...new Set(candidates.map(({ layers }) => layers.length))].sort((a, b) => a - b);
}

/** Bypass distances that were measured, ascending, `full` last. */
export function bypasses(candidates: readonly Candidate[]): Bypass[] {
  const all = [...new Set(candidates.map(({ bypass }) => bypass))];
  const order = (bypass: Bypass) => (bypass === 'full' ? Number.POSITIVE_INFINITY : bypass);
  return all.sort((a, b) => order(a) - order(b));
}

/**
 * The cost of each candidate of one size: first layer across, KL upwards on a logarithmic scale that all sizes share,
 * a series for each bypass. A KL of 0 or less, which has no logarithm, stands on the base line. What the plan took is
 * ringed.
 */
export function costChart(report: OptimizeReport, size: number): Markup {
  const { candidates, plan } = report;
  const [low, high] = klDomain(candidates);
  const x = linear([0, Math.max(1, report.model.layers - 1)], [FRAME.left + 6, FRAME.right - 6]);
  const y = logarithmic([low, high], [FRAME.bottom, FRAME.top]);
  const own = candidates.filter(({ layers }) => layers.length === size);
  const series = bypasses(candidates).map((bypass, index) => ({
    index,
    bypass,
    points: own
      .filter((candidate) => candidate.bypass === bypass)
      .sort((a, b) => a.layers[0]! - b.layers[0]!),
  }));
  return svg(
    {
      id: `costs-${size}`,
      title: `Cost of one group of ${size} layers by its first layer`,
      description: describe(own),
    },
    [WIDTH, HEIGHT],
    yAxis(
      FRAME,
      logTicks([low, high], y, 20).map((tick) => ({ at: y(tick), label: round(tick) })),
    ),
    xAxis(
      FRAME,
      wholeTicks(0, report.model.layers - 1, 9).map((tick) => ({ at: x(tick), label: String(tick) })),
      'first layer of the group',
    ),
    series.map(({ index, points }) => {
      const path = unbroken(points)
        .map((run) => polyline(run.map((point) => [x(point.layers[0]!), y(point.kl)])))
        .join('');
      return (
        path !== '' &&
        html`<path class="line ${seriesClass(index)}" d="${path}" stroke-dasharray="${seriesDash(index)}"/>`
      );
    }),
    series.flatMap(({ index, points }) =>
      points.map((point) => {
        const [px, py] = [x(point.layers[0]!), y(point.kl)];
        const ring = chosen(plan, point) && html`<circle class="ring" cx="${px}" cy="${py}" r="6.5"/>`;
        return html`${ring}${marker(seriesShape(index), px, py, 5.6, seriesClass(index), pointText(point))}`;
      }),
    ),
  );
}

/** One key for all sizes. */
export function costLegend(candidates: readonly Candidate[]): Markup {
  return html`<ul class="legend">${bypasses(candidates).map(
    (bypass, i) => html`<li>${key(seriesShape(i), seriesClass(i), seriesDash(i))}${bypassName(bypass)}</li>`,
  )}<li><svg class="key" viewBox="0 0 16 14" width="16" height="14" aria-hidden="true"><circle class="ring" cx="8" cy="7" r="6"/></svg>taken into the plan</li></ul>`;
}

/** Whether the plan has this group with a bypass that means the same. */
export function chosen(plan: Plan, candidate: PlanGroup): boolean {
  return plan.groups.some(
    (group) =>
      group.layers.length === candidate.layers.length &&
      group.layers.every((layer, i) => layer === candidate.layers[i]) &&
      effectiveBypass(group) === effectiveBypass(candidate),
  );
}

/** Positive values only; half a step of room at both ends. */
function klDomain(candidates: readonly Candidate[]): [number, number] {
  const positive = candidates.map(({ kl }) => kl).filter((kl) => kl > 0);
  if (positive.length === 0) return [0.01, 1];
  return [Math.min(...positive) / 1.3, Math.max(...positive) * 1.3];
}

/** Runs of candidates whose first layers follow each other: a line over a place not measured would be made up. */
function unbroken(points: readonly Candidate[]): Candidate[][] {
  const runs: Candidate[][] = [];
  for (const point of points) {
    const run = runs.at(-1);
    if (run !== undefined && run.at(-1)!.layers[0]! + 1 === point.layers[0]!) run.push(point);
    else runs.push([point]);
  }
  return runs;
}

function pointText({ layers, bypass, kl, crossEntropy }: Candidate): string {
  const change = `${crossEntropy < 0 ? '' : '+'}${nats(crossEntropy)}`;
  return `Layers ${layerRange(layers)}, ${bypassName(bypass)}: KL ${nats(kl)}, cross-entropy ${change} nats a token`;
}

function describe(candidates: readonly Candidate[]): string {
  const sorted = candidates.toSorted((a, b) => a.kl - b.kl);
  const [least, most] = [sorted[0], sorted.at(-1)];
  if (least === undefined || most === undefined) return 'Nothing was measured.';
  return `${candidates.length} candidates. Least: ${pointText(least)}. Most: ${pointText(most)}. All are in the table below.`;
}

import { type Bypass, effectiveBypass, type Plan, type PlanGroup, planSteps } from '@cqil/core';
import { bypassName, layerRange, list } from '../format.js';
import { html, type Markup } from '../html.js';

const WIDTH = 48;
const BOX = 20;
const PITCH = 27;
const ATTENTION = { x: 7, width: 18 };
const FFN = { x: 33, width: 8 };
/** The line that leads from step to step, through the middle of the first row of boxes. */
const LINE = BOX / 2 + 2;

/**
 * The plan as the order in which layers run, left to right: one column a step, the layers of a group above each
 * other, since they run at the same time. In a layer, the wide box is its attention and the narrow one its FFN; a
 * line between two layers is the attention output of one that the other's FFN reads. Columns wrap like words.
 */
export function stack(plan: Plan): Markup {
  const groups = new Map(plan.groups.map((group) => [group.layers[0]!, group]));
  return html`<ol class="stack" aria-label="Steps of the plan in order">${planSteps(plan).map((step) =>
    column(step, groups.get(step[0]!)),
  )}</ol>`;
}

function column(step: readonly number[], group: PlanGroup | undefined): Markup {
  const height = (step.length - 1) * PITCH + BOX + 4;
  const last = (step.length - 1) * PITCH + LINE;
  const bypass = group === undefined ? undefined : effectiveBypass(group);
  const rails =
    step.length > 1 && html`<path class="wire" d="M3.5 ${LINE}V${last}M${WIDTH - 3.5} ${LINE}V${last}"/>`;
  const words =
    group === undefined
      ? `Layer ${step[0]}`
      : `Layers ${list(step.map(String))} at the same time, bypass ${group.bypass === 'full' ? 'full' : `distance ${group.bypass}`}${group.form === undefined ? '' : `, form ${group.form}`}`;
  const note = group !== undefined && html`<span aria-hidden="true">${noteOf(group)}</span>`;
  return html`<li><svg viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img" aria-label="${words}"><path class="wire" d="M0 ${LINE}H${WIDTH}"/>${rails}${step.map((layer, i) => box(layer, i, step.length > 1))}${bypass !== undefined && bypassLines(step.length, bypass)}</svg>${note}</li>`;
}

function box(layer: number, index: number, grouped: boolean): Markup {
  const y = index * PITCH + 2;
  const middle = y + BOX / 2;
  const rail = index > 0 && html`<path class="wire" d="M3.5 ${middle}H${WIDTH - 3.5}"/>`;
  const kind = grouped ? 'box grouped' : 'box';
  const size = layer > 99 ? 9 : 11;
  return html`${rail}<rect class="${kind}" x="${ATTENTION.x}" y="${y}" width="${ATTENTION.width}" height="${BOX}" rx="2"/><text class="number" x="${ATTENTION.x + ATTENTION.width / 2}" y="${middle + 4}" text-anchor="middle" font-size="${size}">${String(layer)}</text><rect class="${kind}" x="${FFN.x}" y="${y}" width="${FFN.width}" height="${BOX}" rx="2"/>`;
}

/** A line from each attention to each FFN of another layer that reads it. */
function bypassLines(size: number, bypass: Bypass): Markup {
  const pairs: [from: number, to: number][] = [];
  for (let to = 0; to < size; to++) {
    for (let from = 0; from < size; from++) {
      if (from === to) continue;
      if (bypass === 'full' || (from < to && to - from <= bypass)) pairs.push([from, to]);
    }
  }
  const middle = (index: number) => index * PITCH + LINE;
  return html`${pairs.map(
    ([from, to]) =>
      html`<path class="bypass" d="M${ATTENTION.x + ATTENTION.width} ${middle(from)}L${FFN.x} ${middle(to)}"/>`,
  )}`;
}

function noteOf({ bypass, form }: PlanGroup): string {
  return form === undefined || form === 'branches' ? bypassName(bypass) : `${bypassName(bypass)}, ${form}`;
}

/** `Layers 12–13 at the same time, d = 1` for those who read instead of look. */
export function stackText(plan: Plan): string {
  const alone = planSteps(plan).filter((step) => step.length === 1).length;
  const groups = plan.groups.map(({ layers, bypass }) => `${layerRange(layers)} (${bypassName(bypass)})`);
  return groups.length === 0
    ? `All ${alone} layers run one after the other.`
    : `Layers ${list(groups)} run at the same time; ${alone} layers run alone.`;
}

import { html, type Markup, type Part } from '../html.js';

/** What every chart says to those who do not see it. `id` is unique in the page. */
export interface Described {
  readonly id: string;
  readonly title: string;
  readonly description: string;
}

/** A drawing with a title and a description, as one image to assistive technology. */
export function svg(
  { id, title, description }: Described,
  [width, height]: readonly [number, number],
  ...body: readonly Part[]
): Markup {
  return html`<svg class="chart" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img" aria-labelledby="${id}-t ${id}-d"><title id="${id}-t">${title}</title><desc id="${id}-d">${description}</desc>${body}</svg>`;
}

export type Shape = 'circle' | 'square' | 'triangle' | 'diamond' | 'cross';

/** Series in order differ in shape, stroke and colour (`.s0`, …), so that colour is never needed. */
export const SHAPES: readonly Shape[] = ['circle', 'square', 'triangle', 'diamond', 'cross'];
const DASHES = ['', '5 3', '1.5 2.5', '7 2 1.5 2', '10 3'];

export function seriesShape(index: number): Shape {
  return SHAPES[index % SHAPES.length]!;
}

export function seriesClass(index: number): string {
  return `s${index % SHAPES.length}`;
}

export function seriesDash(index: number): string {
  return DASHES[index % DASHES.length]!;
}

/** A marker around a point. `className` says colour and filling: `s0`, `s0 hollow`. */
export function marker(
  shape: Shape,
  x: number,
  y: number,
  size: number,
  className: string,
  title?: string,
): Markup {
  const inner = title === undefined ? undefined : html`<title>${title}</title>`;
  const r = size / 2;
  switch (shape) {
    case 'circle':
      return html`<circle class="mark ${className}" cx="${x}" cy="${y}" r="${r}">${inner}</circle>`;
    case 'square':
      return html`<rect class="mark ${className}" x="${x - r * 0.9}" y="${y - r * 0.9}" width="${size * 0.9}" height="${size * 0.9}">${inner}</rect>`;
    case 'triangle':
      return html`<path class="mark ${className}" d="M${x} ${y - r * 1.15}L${x + r * 1.1} ${y + r * 0.85}H${x - r * 1.1}Z">${inner}</path>`;
    case 'diamond':
      return html`<path class="mark ${className}" d="M${x} ${y - r * 1.25}L${x + r * 1.25} ${y}L${x} ${y + r * 1.25}L${x - r * 1.25} ${y}Z">${inner}</path>`;
    case 'cross':
      return html`<path class="mark open ${className}" d="M${x - r} ${y - r}L${x + r} ${y + r}M${x - r} ${y + r}L${x + r} ${y - r}">${inner}</path>`;
  }
}

/** A piece of a legend: a marker on a bit of its line. For the eye only; the words are beside it. */
export function key(shape: Shape, className: string, dash?: string): Markup {
  const line =
    dash === undefined
      ? undefined
      : html`<path class="line ${className}" d="M1 7H27" stroke-dasharray="${dash}"/>`;
  const width = dash === undefined ? 14 : 28;
  return html`<svg class="key" viewBox="0 0 ${width} 14" width="${width}" height="14" aria-hidden="true">${line}${marker(shape, width / 2, 7, 8, className)}</svg>`;
}

export interface Frame {
  readonly left: number;
  readonly right: number;
  readonly top: number;
  readonly bottom: number;
}

/** Horizontal rules with their values at the left. */
export function yAxis(
  frame: Frame,
  ticks: readonly { readonly at: number; readonly label: string }[],
): Markup {
  return html`${ticks.map(
    ({ at, label }) =>
      html`<path class="grid" d="M${frame.left} ${at}H${frame.right}"/><text class="tick" x="${frame.left - 6}" y="${at + 4}" text-anchor="end">${label}</text>`,
  )}`;
}

/** The base line, with values below it. */
export function xAxis(
  frame: Frame,
  ticks: readonly { readonly at: number; readonly label: string }[],
  name?: string,
): Markup {
  return html`<path class="base" d="M${frame.left} ${frame.bottom}H${frame.right}"/>${ticks.map(
    ({ at, label }) =>
      html`<path class="base" d="M${at} ${frame.bottom}v4"/><text class="tick" x="${at}" y="${frame.bottom + 17}" text-anchor="middle">${label}</text>`,
  )}${name === undefined ? undefined : html`<text class="tick" x="${frame.right}" y="${frame.bottom + 33}" text-anchor="end">${name}</text>`}`;
}

/** Points as one path. */
export function polyline(points: readonly (readonly [number, number])[]): string {
  return points.map(([x, y], i) => `${i === 0 ? 'M' : 'L'}${coordinate(x)} ${coordinate(y)}`).join('');
}

export function coordinate(value: number): string {
  return String(Number(value.toFixed(2)));
}

import type { Bypass, Plan } from '@cqil/core';

/** Numbers, times and layers as people read them. All functions give plain text, the same on every machine. */

const NONE = '–';
/** Between a number and its unit no line may break. */
const NBSP = '\u00A0';
const WHOLE = new Intl.NumberFormat('en-US', { maximumFractionDigits: 0 });

/** 12345 → `12,345` */
export function count(value: number): string {
  return Number.isFinite(value) ? WHOLE.format(value).replace('-', '−') : NONE;
}

/** 0.7134 → `71.3 %` */
export function share(value: number): string {
  return Number.isFinite(value) ? `${fixed(value * 100, 1)}${NBSP}%` : NONE;
}

/** 0.2143 → `+21.4 %`; from a hundredfold on as a factor: 120.5 → `× 122` */
export function excess(value: number): string {
  if (!Number.isFinite(value)) return NONE;
  if (value >= 99) return `×${NBSP}${value >= 1e6 ? exponent(value + 1) : count(value + 1)}`;
  const percent = Math.abs(value) * 100;
  const text = percent >= 100 ? count(percent) : fixed(percent, 1);
  return `${value < 0 && Number(text) !== 0 ? '−' : '+'}${text}${NBSP}%`;
}

/** Four digits that count: `48.73`, `605.2`, `12,346`. */
export function perplexity(value: number): string {
  if (!Number.isFinite(value)) return NONE;
  if (value >= 1e7 || Math.abs(value) < 1e-3) return exponent(value);
  return value >= 1000 ? count(value) : value.toPrecision(4).replace('-', '−');
}

/** Three digits that count, for nats a token and errors: `0.0412`, `0.490`, `2.1e−7`. */
export function nats(value: number): string {
  if (!Number.isFinite(value)) return NONE;
  const size = Math.abs(value);
  if (value === 0) return '0';
  if (size < 1e-4 || size >= 1e5) return exponent(value);
  return size >= 999.5 ? count(value) : value.toPrecision(3).replace('-', '−');
}

/** A round number as short as it goes, for ticks and settings: `0.05`, `1000`, `1e−6`. */
export function round(value: number): string {
  if (!Number.isFinite(value)) return NONE;
  return Number(value.toPrecision(6)).toString().replace('e+', 'e').replaceAll('-', '−');
}

/** `low to high`, each as `format` writes it; empty without an interval. */
export function interval(
  value: { readonly low: number; readonly high: number } | undefined,
  format: (value: number) => string,
): string {
  return value === undefined ? '' : `${format(value.low)} to ${format(value.high)}`;
}

/** 0.84 → `0.8 s`, 200 → `3 min 20 s`, 7500 → `2 h 5 min` */
export function duration(seconds: number): string {
  if (!Number.isFinite(seconds)) return NONE;
  if (seconds < 9.95) return `${fixed(seconds, 1)}${NBSP}s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole}${NBSP}s`;
  if (whole < 3600) return joined([Math.floor(whole / 60), 'min'], [whole % 60, 's']);
  const minutes = Math.round(whole / 60);
  return joined([Math.floor(minutes / 60), 'h'], [minutes % 60, 'min']);
}

function joined(...parts: readonly (readonly [value: number, unit: string])[]): string {
  return parts
    .filter(([value], i) => i === 0 || value > 0)
    .map(([value, unit]) => `${value}${NBSP}${unit}`)
    .join(' ');
}

const MONTHS = 'January February March April May June July August September October November December';

/** An ISO 8601 moment as `24 November 2026, 13:05 UTC`; what is none stays as it is. */
export function moment(iso: string): string {
  const date = new Date(iso);
  if (Number.isNaN(date.getTime())) return iso;
  const month = MONTHS.split(' ')[date.getUTCMonth()]!;
  return `${date.getUTCDate()} ${month} ${date.getUTCFullYear()}, ${date.toISOString().slice(11, 16)} UTC`;
}

/** [14, 15, 16] → `14–16` */
export function layerRange(layers: readonly number[]): string {
  const [first, last] = [layers[0], layers.at(-1)];
  if (first === undefined || last === undefined) return NONE;
  const run = layers.every((layer, i) => layer === first + i);
  if (!run) return layers.join(', ');
  return first === last ? `${first}` : `${first}–${last}`;
}

/** 1 → `d = 1`, 'full' → `full` */
export function bypassName(bypass: Bypass): string {
  return bypass === 'full' ? 'full' : `d${NBSP}=${NBSP}${bypass}`;
}

/** `12–13 (d = 1), 14–15 (full)` */
export function planText(plan: Plan): string {
  if (plan.groups.length === 0) return 'no groups';
  return plan.groups.map(({ layers, bypass }) => `${layerRange(layers)} (${bypassName(bypass)})`).join(', ');
}

/** `one`, `two and three`, `one, two and three` */
export function list(items: readonly string[]): string {
  return items.length < 2 ? items.join('') : `${items.slice(0, -1).join(', ')} and ${items.at(-1)}`;
}

/** `1 layer`, `2 layers` */
export function plural(value: number, noun: string): string {
  return `${count(value)} ${noun}${value === 1 ? '' : 's'}`;
}

function fixed(value: number, digits: number): string {
  const text = value.toFixed(digits);
  return Number(text) === 0 ? (0).toFixed(digits) : text.replace('-', '−');
}

function exponent(value: number): string {
  return value.toExponential(1).replace('e+', 'e').replaceAll('-', '−');
}

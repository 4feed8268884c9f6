import type { Span } from '@cqil/core';
import type { Compared, SimulatedRow } from './compare.js';
import { percent } from './render.js';

const PARTS = [
  ['memory', 'Memory'],
  ['compute', 'Arithmetic'],
  ['launch', 'Launches'],
  ['exchange', 'Exchange'],
  ['waiting', 'Waiting'],
] as const;

const WIDTH = 900;
const LABEL = 250;
const BAR = 26;
const LANE = 22;

/** Okabe and Ito's colours, which are told apart by most eyes, darkened or lightened for the paper. */
const STYLE = `:root{color-scheme:light dark;--paper:#fff;--ink:#1b1f23;--muted:#575e66;--rule:#c9cdd1;
--memory:#0072b2;--compute:#c24a00;--launch:#6b5d00;--exchange:#a3477f;--waiting:#b4b9be;--kernel:#0072b2;--runtime:#6b5d00}
@media (prefers-color-scheme:dark){:root{--paper:#15181b;--ink:#e8eaec;--muted:#a3abb3;--rule:#454c53;
--memory:#56b4e9;--compute:#f0a22e;--launch:#d8cb4a;--exchange:#e08fbd;--waiting:#5c646b;--kernel:#56b4e9;--runtime:#d8cb4a}}
body{margin:0 auto;max-width:960px;padding:24px 20px;background:var(--paper);color:var(--ink);
font:15px/1.5 system-ui,sans-serif}h1{font-size:24px}h2{font-size:18px;margin-top:32px}svg{width:100%;height:auto}
text{fill:var(--ink);font-size:12px}.muted{fill:var(--muted);color:var(--muted)}.rule{stroke:var(--rule)}
.key{display:inline-block;width:12px;height:12px;margin:0 6px 0 16px}li{color:var(--muted);font-size:13px}
${['memory', 'compute', 'launch', 'exchange', 'waiting', 'kernel', 'runtime']
  .map((name) => `.${name}{fill:var(--${name});background:var(--${name})}`)
  .join('')}`;

/**
 * A comparison as one page that opens from disk and loads nothing: how long each way takes and what the time is made
 * of, and one token of the plan on several devices as a timeline. The same comparison gives the same bytes.
 */
export function renderPage({ comparison, shown }: Compared): string {
  const { model, machine, plan, steps, promptTokens, rows } = comparison;
  const title = `${model.name} on ${machine.name}`;
  const key = (parts: readonly (readonly [string, string])[]) =>
    `<p>${parts.map(([name, label]) => `<span class="key ${name}"></span>${label}`).join('')}</p>`;
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeText(title)}: CQIL simulation</title><style>${STYLE}</style></head><body>
<h1>${escapeText(title)}</h1>
<p>${plan.layers} layers in ${steps} steps. Simulated, not measured.</p>
<h2>One token behind ${promptTokens}</h2>
${key(PARTS)}
${bars(rows, 'decode')}
<h2>Prefill of ${promptTokens} tokens</h2>
${bars(rows, 'prefill')}
<h2>${escapeText(shown.name)}</h2>
${key([
  ['kernel', 'Kernels'],
  ['exchange', 'Exchange'],
  ['runtime', 'Runtime'],
])}
${timeline(shown)}
<h2>Where the numbers come from</h2>
<ul>${machine.sources.map((source) => `<li>${escapeText(source)}</li>`).join('')}</ul>
</body></html>
`;
}

/** A bar a row, made of its parts. */
function bars(rows: readonly SimulatedRow[], kind: 'prefill' | 'decode'): string {
  const longest = Math.max(...rows.map((row) => row[kind].seconds));
  const scale = (seconds: number) => ((WIDTH - LABEL - 130) * seconds) / longest;
  const drawn = rows.map((row, i) => {
    const { parts, seconds, change } = row[kind];
    const y = i * BAR;
    let x = LABEL;
    // The parts are of the closed form; drawn to the length that was simulated.
    const whole = PARTS.reduce((sum, [name]) => sum + parts[name], 0);
    const rects = PARTS.map(([name, label]) => {
      const width = whole === 0 ? 0 : scale((parts[name] / whole) * seconds);
      const at = x;
      x += width;
      return `<rect class="${name}" x="${round(at)}" y="${y + 3}" width="${round(width)}" height="${BAR - 8}"><title>${label}: ${ms(parts[name])}</title></rect>`;
    });
    const told = i === 0 ? '' : ` (${percent({ change })})`;
    return `<text x="${LABEL - 8}" y="${y + 17}" text-anchor="end">${escapeText(row.name)}</text>${rects.join('')}<text x="${round(x + 6)}" y="${y + 17}">${ms(seconds)}${told}</text>`;
  });
  return svg(
    rows.length * BAR,
    drawn.join(''),
    `${kind}: ${rows.map((row) => `${row.name} ${ms(row[kind].seconds)}`).join('; ')}`,
  );
}

/** A lane a device: neighbouring spans of one kind are one rectangle, since a token has thousands of kernels. */
function timeline({ program, simulation, name }: Compared['shown']): string {
  const scale = (seconds: number) => LABEL + ((WIDTH - LABEL - 10) * seconds) / simulation.seconds;
  const lanes = program.devices.map((id, device) => {
    const y = device * LANE;
    const spans = merged(
      simulation.spans.filter((span) => span.device === device && span.kind !== 'launch'),
      simulation.seconds / WIDTH,
    );
    const rects = spans.map(
      ({ kind, start, end, name: what }) =>
        `<rect class="${kind}" x="${round(scale(start))}" y="${y + 3}" width="${round(Math.max(0.3, scale(end) - scale(start)))}" height="${LANE - 6}"><title>${escapeText(what)}</title></rect>`,
    );
    return `<text x="${LABEL - 8}" y="${y + 15}" text-anchor="end">device ${escapeText(id)}</text>${rects.join('')}`;
  });
  const bottom = program.devices.length * LANE;
  const axis = [0, 0.25, 0.5, 0.75, 1].map((share) => {
    const x = round(scale(share * simulation.seconds));
    return `<path class="rule" d="M${x} 0V${bottom}"/><text class="muted" x="${x}" y="${bottom + 16}" text-anchor="${share === 1 ? 'end' : 'middle'}">${ms(share * simulation.seconds)}</text>`;
  });
  return svg(bottom + 22, axis.join('') + lanes.join(''), name);
}

/** Spans of one kind that lie closer than `gap` seconds as one. */
function merged(spans: readonly Span[], gap: number): Span[] {
  const found: Span[] = [];
  for (const span of spans) {
    const last = found.at(-1);
    if (last !== undefined && last.kind === span.kind && span.start - last.end < gap) {
      found[found.length - 1] = {
        ...last,
        end: Math.max(last.end, span.end),
        name: `${last.name.split(' … ')[0]} … ${span.name}`,
      };
    } else found.push(span);
  }
  return found;
}

function svg(height: number, body: string, description: string): string {
  return `<svg viewBox="0 0 ${WIDTH} ${height}" role="img" aria-label="${escapeText(description)}">${body}</svg>`;
}

function ms(seconds: number): string {
  return `${(1000 * seconds).toFixed(2)} ms`;
}

function round(value: number): string {
  return String(Number(value.toFixed(2)));
}

function escapeText(text: string): string {
  return text
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;');
}

import { table } from '../terminal/table.js';
import type { Comparison, SimulatedPass } from './compare.js';

/** A comparison for people: times, changes, and what a decoding step is made of. */
export function renderComparison({
  model,
  machine,
  plan,
  steps,
  promptTokens,
  rows,
  best,
}: Comparison): string {
  const contended = rows.some(({ decode }) => Math.abs(decode.contention) > 1e-9);
  const head = [
    '',
    `prefill of ${promptTokens}`,
    '',
    'decode',
    '',
    'memory',
    'arithmetic',
    'launches',
    'exchange',
    'waiting',
    ...(contended ? ['contention'] : []),
  ];
  const body = rows.map(({ name, prefill, decode }, i) => [
    name,
    milliseconds(prefill.seconds),
    i === 0 ? '' : percent(prefill),
    milliseconds(decode.seconds),
    i === 0 ? '' : percent(decode),
    ...[
      decode.parts.memory,
      decode.parts.compute,
      decode.parts.launch,
      decode.parts.exchange,
      decode.parts.waiting,
      ...(contended ? [decode.contention] : []),
    ].map(milliseconds),
  ]);
  const tight = rows.filter(({ tooSmall }) => tooSmall.length > 0);
  const teams = best.placement.teams.map((team) => team.join('+')).join(' | ');
  return [
    `${model.name} on ${machine.name}; ${plan.layers} layers in ${steps} steps`,
    '',
    table([head, ...body]),
    '',
    `soonest for a token: ${best.planned ? 'by the plan' : 'unplanned'}, devices ${teams}${
      best.placement.ungrouped === 'split' ? ', the rest split' : ''
    }: ${milliseconds(best.seconds)}`,
    ...tight.map(({ name, tooSmall }) => `does not fit into memory: ${name} (device ${tooSmall.join(', ')})`),
    'Simulated, not measured. What a row is made of is the part of the device that is done last.',
    ...machine.sources.map((source) => `  ${source}`),
  ].join('\n');
}

function milliseconds(seconds: number): string {
  return `${(1000 * seconds).toFixed(3)} ms`;
}

/** With its sign, and none where it rounds to nothing. */
export function percent({ change }: Pick<SimulatedPass, 'change'>): string {
  const rounded = Math.abs(100 * change).toFixed(1);
  const sign = rounded === '0.0' ? '' : change < 0 ? '−' : '+';
  return `${sign}${rounded} %`;
}

import { sequentialSteps } from '@cqil/core';
import prettyBytes from 'pretty-bytes';
import { describePlan } from '../plan.js';
import { facts } from '../terminal/table.js';
import type { LayerDescription, ModelDescription } from './describe.js';
import { renderRefits } from './refits.js';

/** A model's description for people. */
export function renderDescription(description: ModelDescription): string {
  const { model, architecture, layers, operators, sizes, grouping } = description;
  const opsets = Object.entries(architecture.opsets).map(([domain, version]) => `${domain} ${version}`);
  const list = (counts: Readonly<Record<string, number>>, show: (count: number) => string): string =>
    Object.entries(counts)
      .map(([name, value]) => `${name} ${show(value)}`)
      .join(', ');
  const pairs: [string, string][] = [
    ['model', model.root],
    ['graph', `${model.graph} (${model.layout} layout, dtype ${model.dtype})`],
  ];
  if (model.available.length > 1) pairs.push(['dtypes there', model.available.join(', ')]);
  pairs.push(
    ['architecture', architecture.type ?? 'not named by a config'],
    [
      'made by',
      `${architecture.producer || 'unknown'}, IR ${architecture.irVersion}, opset ${opsets.join(', ')}`,
    ],
    ['weights', `${prettyBytes(sizes.weightBytes)}, ${count(sizes.parameters)} parameters`],
    ['  by type', list(sizes.byType, prettyBytes)],
    ['operators', list(operators, (times) => `× ${times}`)],
    ['layers', String(description.layerCount)],
    ...describeKinds(layers).map((line): [string, string] => ['', line]),
  );
  if (description.plan !== undefined) {
    pairs.push(['plan', describePlan(description.plan, sequentialSteps(description.plan))]);
  }
  if (description.refitted !== undefined) pairs.push(['refitted', renderRefits(description.refitted)]);
  if (description.plan !== undefined) {
    pairs.push(['groupable', 'not again: plan the original']);
    return facts(pairs);
  }
  pairs.push(['groupable', renderRuns(grouping.runs)]);
  if (!grouping.bypass) {
    pairs.push(['', 'no bypass: these blocks add attention and FFN at once, so every bypass means the same']);
  }
  for (const { layer, reason } of grouping.refused) pairs.push(['', `layer ${layer} not: ${reason}`]);
  return facts(pairs);
}

function describeKinds(layers: readonly LayerDescription[]): string[] {
  const runs: { first: number; last: number; words: string }[] = [];
  for (const layer of layers) {
    const words = `${layer.kind}, norms ${layer.attentionNorm}/${layer.ffnNorm}${layer.postNorms ? ', post-norms' : ''}`;
    const run = runs.at(-1);
    if (run?.words === words) run.last = layer.index;
    else runs.push({ first: layer.index, last: layer.index, words });
  }
  return runs.map(({ first, last, words }) => `layers ${first}–${last}: ${words}`);
}

function renderRuns(runs: readonly (readonly [number, number])[]): string {
  if (runs.length === 0) return 'no two neighbouring layers';
  return runs.map(([first, end]) => `layers ${first}–${end - 1}`).join(', ');
}

function count(value: number): string {
  if (value >= 1e9) return `${(value / 1e9).toFixed(2)} billion`;
  return value >= 1e6 ? `${(value / 1e6).toFixed(1)} million` : String(value);
}

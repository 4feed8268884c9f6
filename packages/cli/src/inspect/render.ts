import prettyBytes from 'pretty-bytes';
import { table } from '../terminal/table.js';
import type { LayerDescription, ModelDescription } from './describe.js';

/** A model's description for people. */
export function renderDescription(description: ModelDescription): string {
  const { model, architecture, layers, operators, sizes, grouping } = description;
  const opsets = Object.entries(architecture.opsets).map(([domain, version]) => `${domain} ${version}`);
  const facts = [
    ['model', model.root],
    ['graph', `${model.graph} (${model.layout} layout, dtype ${model.dtype})`],
    ...(model.available.length > 1 ? [['dtypes there', model.available.join(', ')]] : []),
    ['architecture', architecture.type ?? 'not named by a config'],
    [
      'made by',
      `${architecture.producer || 'unknown'}, IR ${architecture.irVersion}, opset ${opsets.join(', ')}`,
    ],
    ['weights', `${prettyBytes(sizes.weightBytes)}, ${count(sizes.parameters)} parameters`],
    [
      '  by type',
      Object.entries(sizes.byType)
        .map(([type, bytes]) => `${type} ${prettyBytes(bytes)}`)
        .join(', '),
    ],
    [
      'operators',
      Object.entries(operators)
        .map(([name, times]) => `${name} × ${times}`)
        .join(', '),
    ],
    ['layers', String(layers.length)],
    ...describeKinds(layers).map((line) => ['', line]),
    ['groupable', renderRuns(grouping.runs)],
    ...(grouping.bypass
      ? []
      : [['', 'no bypass: these blocks add attention and FFN at once, so every bypass means the same']]),
    ...grouping.refused.map(({ layer, reason }) => ['', `layer ${layer} not: ${reason}`]),
    ...(description.plan === undefined ? [] : [['plan', JSON.stringify(description.plan)]]),
  ];
  return table(facts);
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

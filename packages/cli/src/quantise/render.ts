import type { KindsEvaluation, QdqRecord, QuantisedMatrix } from '@cqil/planner';
import { table } from '../terminal/table.js';

/** What each matrix got, a line each. */
export function renderMatrices(matrices: readonly QuantisedMatrix[]): string {
  return table([
    ['matrix', 'inputs', 'outputs', 'bits', 'error'],
    ...matrices.map(({ name, use, inFeatures, outFeatures, bits, error }) => [
      use === 'product' ? name : `${name} (${use})`,
      `${inFeatures}`,
      `${outFeatures}`,
      `${bits}`,
      `${(100 * Math.sqrt(error)).toFixed(2)} %`,
    ]),
  ]);
}

/** What products read, a line each, and the steps of the residual stream. */
export function renderQdq({
  inputs,
  residual,
  matrices,
  rotation,
}: Pick<QdqRecord, 'inputs' | 'residual' | 'matrices' | 'rotation'>): string {
  const shapes = new Map(matrices.map((matrix) => [matrix.name, matrix]));
  const { bits, sums, stretches } = residual;
  return [
    table([
      ['products that read one value', 'inputs', 'outputs', 'bits', 'error'],
      ...inputs.map(({ products, bits: width, error }) => [
        products.join(', '),
        `${shapes.get(products[0] ?? '')?.inFeatures ?? ''}`,
        `${products.reduce((sum, name) => sum + (shapes.get(name)?.outFeatures ?? 0), 0)}`,
        `${width}`,
        `${(100 * Math.sqrt(error)).toFixed(2)} %`,
      ]),
    ]),
    `${sums} sums of the residual stream in ${bits}-bit integers; steps: ` +
      stretches.map(({ from, to, step }) => `${step.toPrecision(4)} (${from + 1} to ${to})`).join(', '),
    rotation.applied
      ? 'the stream is turned: massive activations are spread'
      : `the stream is not turned: ${rotation.reason}`,
  ].join('\n');
}

/** What it costs on held-out text, a line for each kind. */
export function renderPerplexity({ kinds, excess, kl }: KindsEvaluation): string {
  const percent = (value: number) => `${value < 0 ? '−' : '+'}${Math.abs(100 * value).toFixed(2)} %`;
  return table([
    ['held-out text', 'tokens', 'before', 'after', 'perplexity', 'KL'],
    ...kinds.map((kind) => [
      kind.kind,
      `${kind.tokens}`,
      (kind.perplexity / (1 + kind.excess)).toFixed(3),
      kind.perplexity.toFixed(3),
      percent(kind.excess),
      kind.kl.toFixed(4),
    ]),
    ...(kinds.length > 1 ? [['all kinds alike', '', '', '', percent(excess), kl.toFixed(4)]] : []),
  ]);
}

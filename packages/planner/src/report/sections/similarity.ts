import type { OptimizeReport } from '../../optimize/document.js';
import { heatLegend, heatmap } from '../charts/heatmap.js';
import { html } from '../html.js';
import { folded, table } from '../table.js';
import { figure, type Section } from './section.js';

/** How far ahead the table looks: groups are seldom larger. */
const AHEAD = 4;

/** The cosine of all pairs of layer inputs. */
export function similaritySection(report: OptimizeReport): Section | undefined {
  const { similarity, plan } = report;
  if (similarity === undefined || similarity.length < 2) return undefined;
  const ahead = Array.from({ length: Math.min(AHEAD, similarity.length - 1) }, (_, i) => i + 1);
  const words = extremes(similarity);
  return {
    id: 'similarity',
    title: "How alike the layers' inputs are",
    body: html`<p>${words} Layers with nearly equal inputs can hope to be computed from one; what that costs has to be measured.</p>${figure(
      html`<div class="beside"><div>${heatmap(
        {
          id: 'similarity-map',
          title: 'Cosine similarity of all pairs of layer inputs',
          description: `${words} The table below has the values of neighbours.`,
        },
        similarity,
        plan,
      )}</div>${heatLegend()}</div>`,
      html`Cosine between the input of one layer and that of another, mean over calibration tokens. Steps of colour are narrower near 1. Frames are the groups of the plan, with the output that follows them.`,
    )}${folded(
      'Neighbours as a table',
      table({
        id: 'neighbours',
        caption: 'Cosine of the input of each layer with the inputs that follow',
        columns: [{ name: 'Input of layer' }, ...ahead.map((step) => ({ name: `${step} on` }))],
        bodies: [
          {
            rows: similarity
              .slice(0, -1)
              .map((row, i) => [
                String(i),
                ...ahead.map((step) => row[i + step]?.toFixed(4).replace('-', '−') ?? ''),
              ]),
          },
        ],
      }),
    )}`,
  };
}

/** The most and the least alike neighbours, in a sentence. */
function extremes(similarity: readonly (readonly number[])[]): string {
  const pairs = similarity
    .slice(0, -1)
    .map((row, i) => ({ i, value: row[i + 1]! }))
    .sort((a, b) => b.value - a.value || a.i - b.i);
  const name = ({ i, value }: { i: number; value: number }) =>
    `${inputName(i, similarity.length)} and ${inputName(i + 1, similarity.length)} (${value.toFixed(3).replace('-', '−')})`;
  const [most, least] = [pairs[0]!, pairs.at(-1)!];
  return `Most alike among neighbours are ${name(most)}, least alike ${name(least)}.`;
}

function inputName(index: number, size: number): string {
  return index === size - 1 ? 'the output' : `input ${index}`;
}

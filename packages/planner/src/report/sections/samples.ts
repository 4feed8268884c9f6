import type { OptimizeReport } from '../../optimize/document.js';
import { count } from '../format.js';
import { html, type Markup } from '../html.js';
import type { Section } from './section.js';

/** What both models say, side by side. */
export function samplesSection(report: OptimizeReport): Section | undefined {
  const { samples } = report;
  if (samples.length === 0) return undefined;
  return {
    id: 'samples',
    title: 'Side by side',
    body: html`<p>Greedy continuations: the best token each time. What differs from the original's is underlined.</p>${samples.map(sample)}`,
  };
}

function sample({ prompt, original, planned }: OptimizeReport['samples'][number]): Markup {
  const same = commonStart(original, planned);
  const [head, tail] = [planned.slice(0, same), planned.slice(same)];
  const remark =
    original === planned
      ? 'The same to the last character.'
      : `The same for the first ${count([...head].length)} characters.`;
  return html`<article class="sample"><h3><span class="unseen">Prompt: </span><q dir="auto">${prompt}</q></h3><div class="pair"><div><h4>Original</h4><p class="says" dir="auto">${original}</p></div><div><h4>Planned</h4><p class="says" dir="auto">${head}${tail !== '' && html`<u>${tail}</u>`}</p></div></div><p class="quiet">${remark}</p></article>`;
}

/** Length of the common start, in UTF-16 units, never within a surrogate pair. */
export function commonStart(a: string, b: string): number {
  let length = 0;
  while (length < a.length && length < b.length && a[length] === b[length]) length++;
  const last = a.charCodeAt(length - 1);
  return length > 0 && last >= 0xd800 && last <= 0xdbff ? length - 1 : length;
}

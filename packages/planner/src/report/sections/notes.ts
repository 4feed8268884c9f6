import type { OptimizeReport } from '../../optimize/document.js';
import { html } from '../html.js';
import type { Section } from './section.js';

/** What the user should know. */
export function notesSection({ notes }: OptimizeReport): Section | undefined {
  if (notes.length === 0) return undefined;
  return {
    id: 'notes',
    title: 'Notes and limits',
    body: html`<ul class="notes">${notes.map((note) => html`<li>${note}</li>`)}</ul>`,
  };
}

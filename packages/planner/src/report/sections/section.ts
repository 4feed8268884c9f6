import { html, type Markup, type Part } from '../html.js';

/** A section of the page; `id` is its anchor. */
export interface Section {
  readonly id: string;
  readonly title: string;
  readonly body: Markup;
}

/** A chart or table with words about it. */
export function figure(content: Part, caption: Part, className = ''): Markup {
  return html`<figure class="${className}">${content}<figcaption>${caption}</figcaption></figure>`;
}

export function section({ id, title, body }: Section): Markup {
  return html`<section id="${id}" aria-labelledby="${id}-h"><h2 id="${id}-h">${title}</h2>${body}</section>`;
}

import { html, type Markup, type Part } from './html.js';

export interface Column {
  readonly name: Part;
  /** Text columns read from the left; all others are numbers. */
  readonly text?: boolean;
}

export interface TableOptions {
  /** Unique in the page. */
  readonly id: string;
  readonly caption: string;
  readonly columns: readonly Column[];
  /** Whether the names of the columns are for screen readers only, as where there is a name and its value. */
  readonly bare?: boolean;
  /** Rows in bodies; a body may have a name. The first cell of a row is its header. */
  readonly bodies: readonly { readonly name?: string; readonly rows: readonly (readonly Part[])[] }[];
}

/**
 * A table with a caption and scopes, in a region of its own that scrolls where the page is narrow. The region takes
 * the focus so that a keyboard can scroll it.
 */
export function table({ id, caption, columns, bare, bodies }: TableOptions): Markup {
  const alignment = columns.map(({ text }) => (text === true ? 'text' : 'number'));
  const head = columns.map(
    ({ name }, i) =>
      html`<th scope="col" class="${alignment[i]}">${bare === true ? html`<span class="unseen">${name}</span>` : name}</th>`,
  );
  return html`<div class="scroll" role="region" aria-labelledby="${id}-c" tabindex="0"><table id="${id}"${bare === true && html` class="bare"`}><caption id="${id}-c">${caption}</caption><thead><tr>${head}</tr></thead>${bodies.map(
    ({ name, rows }) =>
      html`<tbody>${name !== undefined && html`<tr class="section"><th scope="rowgroup" colspan="${columns.length}">${name}</th></tr>`}${rows.map(
        ([first, ...cells]) =>
          html`<tr><th scope="row" class="${alignment[0]}">${first}</th>${cells.map((cell, i) => html`<td class="${alignment[i + 1]}">${cell}</td>`)}</tr>`,
      )}</tbody>`,
  )}</table></div>`;
}

/** What is there for those who want every number, folded away; opened for print. */
export function folded(summary: string, ...content: readonly Part[]): Markup {
  return html`<details><summary>${summary}</summary>${content}</details>`;
}

/** A value with a second, quieter line below it. */
export function twoLines(value: Part, below: string): Markup {
  return below === '' ? html`${value}` : html`${value}<small>${below}</small>`;
}

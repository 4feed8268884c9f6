/** Markup that is safe to put into a page as it is. Only {@link html} and {@link trusted} make it. */
export class Markup {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }
}

/** What may stand in a template: text is escaped, markup is not, lists are joined, nothing is left out. */
export type Part = Markup | string | number | false | undefined | readonly Part[];

/**
 * HTML or SVG from a template. Whatever is put in is escaped, for text and for attributes in double quotes alike, so
 * that a page can be made from names and texts of strangers. Numbers are coordinates: they keep two decimals.
 */
export function html(strings: TemplateStringsArray, ...parts: readonly Part[]): Markup {
  return new Markup(strings.reduce((text, piece, i) => text + render(parts[i - 1]) + piece));
}

/** Text of our own that is markup already: the style sheet, the script. Never for anything from a document. */
export function trusted(text: string): Markup {
  return new Markup(text);
}

function render(part: Part): string {
  if (part === undefined || part === false) return '';
  if (part instanceof Markup) return part.text;
  if (typeof part === 'number') return String(Number(part.toFixed(2)));
  if (typeof part === 'string') return escapeHtml(part);
  return part.map(render).join('');
}

const ENTITIES: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
};

/** Escapes text for HTML; control characters and halves of surrogate pairs, which a page cannot hold, become U+FFFD. */
export function escapeHtml(text: string): string {
  return printable(text).replace(/[&<>"']/g, (character) => ENTITIES[character]!);
}

/** Text without what no document format can hold; tabs and line breaks stay. */
export function printable(text: string): string {
  return text.replace(/[\p{Cc}\p{Cs}]/gu, (character) =>
    character === '\n' || character === '\t' ? character : character === '\r' ? '' : '\uFFFD',
  );
}

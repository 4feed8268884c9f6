import { printable } from './html.js';

/** Text as Markdown that shows it as it is, on one line: in a paragraph, a list item or a cell of a table. */
export function plain(text: string): string {
  return oneLine(text)
    .replace(/[\\`*_[\]|~$]/g, (character) => `\\${character}`)
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replace(/^([#+\-=]|\d+[.)])/, (start) => `${start.slice(0, -1)}\\${start.slice(-1)}`);
}

/** Text as a code span; its fence is longer than any run of backticks in it. Bars are escaped, as tables need. */
export function code(text: string): string {
  const line = oneLine(text);
  const fence = fenceFor(line, 1);
  const pad = line.startsWith('`') || line.endsWith('`') || line.trim() === '' ? ' ' : '';
  return `${fence}${pad}${line.replaceAll('|', '\\|')}${pad}${fence}`;
}

/** Text as a block of code, line breaks kept. */
export function codeBlock(text: string, language = ''): string {
  const fence = fenceFor(text, 3);
  return `${fence}${language}\n${printable(text).replace(/\n$/, '')}\n${fence}`;
}

/** A value for YAML front matter: a string in double quotes, as JSON writes it, which is YAML, too. */
export function yamlString(text: string): string {
  return JSON.stringify(printable(text)).replace(/[\u2028\u2029\uFEFF]/g, (character) => {
    return `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`;
  });
}

/** A table; cells are Markdown already. The first column reads from the left, the others are numbers unless said. */
export function markdownTable(
  head: readonly string[],
  rows: readonly (readonly string[])[],
  textColumns: readonly number[] = [0],
): string {
  const rule = head.map((_, i) => (textColumns.includes(i) ? '---' : '---:'));
  return [head, rule, ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}

function oneLine(text: string): string {
  return printable(text).replace(/\s+/g, ' ').trim();
}

function fenceFor(text: string, least: number): string {
  const longest = Math.max(0, ...(text.match(/`+/g) ?? []).map((run) => run.length));
  return '`'.repeat(Math.max(least, longest + 1));
}

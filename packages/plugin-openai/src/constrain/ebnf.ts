/** Expressions of the grammar notation that xgrammar reads. */

/** A text that must come as it is. */
export function literal(text: string): string {
  return text === '' ? '""' : `"${Array.from(text, escaped).join('')}"`;
}

/** One of several; what is there once is said once. */
export function anyOf(alternatives: readonly string[]): string {
  const different = [...new Set(alternatives)];
  return different.length === 1 ? (different[0] as string) : `(${different.join(' | ')})`;
}

/** One after the other. */
export function sequence(...parts: readonly string[]): string {
  const said = parts.filter((part) => part !== '""' && part !== '');
  return said.length === 0 ? '""' : said.length === 1 ? (said[0] as string) : `(${said.join(' ')})`;
}

/** `part`, from `min` to `max` times; without an upper bound when `max` is absent. */
export function repeat(part: string, min: number, max?: number): string {
  if (max === 0) return '""';
  if (min === 1 && max === 1) return part;
  if (max === undefined && min <= 1) return `(${part})${min === 0 ? '*' : '+'}`;
  if (min === 0 && max === 1) return `(${part})?`;
  return `(${part}){${min},${max ?? ''}}`;
}

/** Code points, both ends included. */
export type Range = readonly [first: number, last: number];

/**
 * One of these characters. xgrammar's classes are exact for ASCII and for single bytes only, so that other characters
 * are spelt out as the bytes of their UTF-8; surrogates, which have none, are left out.
 */
export function characterClass(ranges: readonly Range[]): string {
  const ascii = ranges.flatMap((range) => within(range, [0, 0x7f]));
  const parts = ascii.length === 0 ? [] : [byteClass(ascii)];
  for (const range of ranges) {
    for (const lengthRange of BY_LENGTH) {
      for (const [first, last] of within(range, lengthRange)) {
        parts.push(...byteSequences(utf8(first), utf8(last)));
      }
    }
  }
  return anyOf(parts);
}

/** Code points of two, three and four bytes. */
const BY_LENGTH: readonly Range[] = [
  [0x80, 0x7ff],
  [0x800, 0xd7ff],
  [0xe000, 0xffff],
  [0x10000, 0x10ffff],
];
const CONTINUATION: Range = [0x80, 0xbf];

/** All sequences of bytes from one to another of the same length. */
function byteSequences(low: readonly number[], high: readonly number[]): string[] {
  const [from, to] = [low[0] as number, high[0] as number];
  const [lowRest, highRest] = [low.slice(1), high.slice(1)];
  if (lowRest.length === 0) return [byteClass([[from, to]])];
  const behind = (byte: number, least: readonly number[], most: readonly number[]) =>
    sequence(byteClass([[byte, byte]]), anyOf(byteSequences(least, most)));
  if (from === to) return [behind(from, lowRest, highRest)];
  const parts: string[] = [];
  const wholeLow = lowRest.every((byte) => byte === CONTINUATION[0]);
  const wholeHigh = highRest.every((byte) => byte === CONTINUATION[1]);
  if (!wholeLow)
    parts.push(
      behind(
        from,
        lowRest,
        lowRest.map(() => CONTINUATION[1]),
      ),
    );
  const [first, last] = [wholeLow ? from : from + 1, wholeHigh ? to : to - 1];
  if (first <= last)
    parts.push(sequence(byteClass([[first, last]]), ...lowRest.map(() => byteClass([CONTINUATION]))));
  if (!wholeHigh)
    parts.push(
      behind(
        to,
        highRest.map(() => CONTINUATION[0]),
        highRest,
      ),
    );
  return parts;
}

function within([first, last]: Range, [from, to]: Range): Range[] {
  const range: Range = [Math.max(first, from), Math.min(last, to)];
  return range[0] <= range[1] ? [range] : [];
}

function byteClass(ranges: readonly Range[]): string {
  const parts = ranges.map(([first, last]) => {
    const from = escapedCode(first);
    return first === last ? from : `${from}-${escapedCode(last)}`;
  });
  return `[${parts.join('')}]`;
}

function utf8(code: number): number[] {
  return [...new TextEncoder().encode(String.fromCodePoint(code))];
}

function escaped(character: string): string {
  return escapedCode(character.codePointAt(0) as number);
}

/** Letters and digits as they are; everything else could mean something. */
function escapedCode(code: number): string {
  const character = String.fromCodePoint(code);
  if (/[a-zA-Z0-9]/.test(character)) return character;
  if (code < 0x10000) return `\\u${code.toString(16).padStart(4, '0')}`;
  return `\\U${code.toString(16).padStart(8, '0')}`;
}

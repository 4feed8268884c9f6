import { anyOf, characterClass, literal, type Range, repeat, sequence } from './ebnf.js';

/** The most that a pattern may repeat something by number. */
const MOST = 256;
const LENGTH = 256;

/** What in a JSON string must be escaped. */
const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const UNSAFE: readonly Range[] = [
  [0, 0x1f],
  [QUOTE, QUOTE],
  [BACKSLASH, BACKSLASH],
  [0x7f, 0x7f],
];
const SURROGATES: Range = [0xd800, 0xdfff];
const LAST = 0x10ffff;

const CLASSES: Readonly<Record<string, readonly Range[]>> = {
  d: [[48, 57]],
  w: [
    [48, 57],
    [65, 90],
    [95, 95],
    [97, 122],
  ],
  // Of white space only what needs no escape in JSON.
  s: [[32, 32]],
};

/**
 * The insides of JSON strings that a regular expression matches as a whole. (A JSON Schema's pattern may match any
 * part of a string; a string that it matches as a whole is one of those.)
 *
 * @throws SyntaxError that says what is not supported: look-around, references, `\b`, flags, large numbers
 */
export function patternGrammar(pattern: string): string {
  if (pattern.length > LENGTH) throw new SyntaxError(`a pattern has at most ${LENGTH} characters`);
  // What is no regular expression at all is said in the engine's words.
  new RegExp(pattern, 'u');
  const parser = new Parser(pattern);
  const grammar = parser.alternatives(true);
  parser.end();
  return grammar;
}

class Parser {
  readonly #text: readonly string[];
  #at = 0;

  constructor(pattern: string) {
    this.#text = [...pattern];
  }

  alternatives(top: boolean): string {
    const parts = [this.#sequence(top)];
    while (this.#take('|')) parts.push(this.#sequence(top));
    return anyOf(parts);
  }

  end(): void {
    if (this.#at < this.#text.length) throw this.#unsupported();
  }

  #sequence(top: boolean): string {
    const parts: string[] = [];
    if (top) this.#take('^');
    for (;;) {
      const next = this.#text[this.#at];
      if (next === undefined || next === '|' || next === ')') break;
      if (top && next === '$') {
        const after = this.#text[this.#at + 1];
        if (after !== undefined && after !== '|') throw this.#unsupported();
        this.#at++;
        break;
      }
      parts.push(this.#quantified());
    }
    return sequence(...parts);
  }

  #quantified(): string {
    const part = this.#atom();
    const [min, max] = this.#quantity();
    // Lazy or greedy: the same strings match.
    if (min !== 1 || max !== 1) this.#take('?');
    return repeat(part, min, max);
  }

  #quantity(): [min: number, max: number | undefined] {
    if (this.#take('*')) return [0, undefined];
    if (this.#take('+')) return [1, undefined];
    if (this.#take('?')) return [0, 1];
    if (this.#text[this.#at] !== '{') return [1, 1];
    const close = this.#text.indexOf('}', this.#at);
    const said = this.#text.slice(this.#at + 1, close).join('');
    this.#at = close + 1;
    const [min = '', max] = said.split(',');
    const [low, high] = [Number(min), max === undefined ? Number(min) : max === '' ? undefined : Number(max)];
    if (low > MOST || (high ?? 0) > MOST) throw new SyntaxError(`a pattern repeats at most ${MOST} times`);
    return [low, high];
  }

  #atom(): string {
    const next = this.#text[this.#at++] as string;
    if (next === '(') return this.#group();
    if (next === '[') return this.#class();
    if (next === '.') return outside([]);
    if (next === '\\') {
      const set = this.#escape();
      return typeof set === 'number'
        ? character(set)
        : set.negated
          ? outside(set.ranges)
          : inside(set.ranges);
    }
    if ('^$'.includes(next)) throw this.#unsupported();
    return character(next.codePointAt(0) as number);
  }

  #group(): string {
    if (this.#take('?')) {
      if (this.#take('<')) {
        // A name, not a look behind.
        if (this.#text[this.#at] === '=' || this.#text[this.#at] === '!') throw this.#unsupported();
        this.#at = this.#text.indexOf('>', this.#at) + 1;
      } else if (!this.#take(':')) throw this.#unsupported();
    }
    const grammar = this.alternatives(false);
    if (!this.#take(')')) throw this.#unsupported();
    return grammar;
  }

  #class(): string {
    const negated = this.#take('^');
    const ranges: Range[] = [];
    while (!this.#take(']')) {
      const first = this.#member();
      if (typeof first !== 'number') {
        ranges.push(...first);
        continue;
      }
      if (this.#text[this.#at] !== '-' || this.#text[this.#at + 1] === ']') {
        ranges.push([first, first]);
        continue;
      }
      this.#at++;
      const last = this.#member();
      if (typeof last !== 'number') throw this.#unsupported();
      ranges.push([first, last]);
    }
    return negated ? outside(ranges) : inside(ranges);
  }

  /** A character of a class, or the characters that an escape stands for. */
  #member(): number | readonly Range[] {
    const next = this.#text[this.#at++] as string;
    if (next !== '\\') return next.codePointAt(0) as number;
    const set = this.#escape();
    if (typeof set === 'number') return set;
    if (set.negated) throw this.#unsupported();
    return set.ranges;
  }

  /** Behind a backslash: a code point, or a class. */
  #escape(): number | { readonly ranges: readonly Range[]; readonly negated: boolean } {
    const next = this.#text[this.#at++] as string;
    const ranges = CLASSES[next.toLowerCase()];
    if (ranges !== undefined) return { ranges, negated: next !== next.toLowerCase() };
    if (next === 'x') return this.#hex(2);
    if (next === 'u') {
      if (this.#text[this.#at] === '{') throw this.#unsupported();
      return this.#hex(4);
    }
    if (/[a-zA-Z0-9]/.test(next)) throw this.#unsupported();
    return next.codePointAt(0) as number;
  }

  #hex(length: number): number {
    const digits = this.#text.slice(this.#at, this.#at + length).join('');
    this.#at += length;
    return Number.parseInt(digits, 16);
  }

  #take(character: string): boolean {
    if (this.#text[this.#at] !== character) return false;
    this.#at++;
    return true;
  }

  #unsupported(): SyntaxError {
    const at = Math.max(0, this.#at - 1);
    return new SyntaxError(
      `what stands at ${at} of the pattern is not supported (look-around, references, anchors within)`,
    );
  }
}

function character(code: number): string {
  if (code === QUOTE || code === BACKSLASH) return literal(`\\${String.fromCodePoint(code)}`);
  if (isUnsafe(code)) throw new SyntaxError('control characters in patterns are not supported');
  return literal(String.fromCodePoint(code));
}

function isUnsafe(code: number): boolean {
  return UNSAFE.some(([first, last]) => code >= first && code <= last);
}

/** One of these characters, as JSON writes them. */
function inside(ranges: readonly Range[]): string {
  const safe = ranges.flatMap((range) => without(range, [...UNSAFE, SURROGATES]));
  const has = (code: number) => ranges.some(([first, last]) => first <= code && code <= last);
  const parts = [QUOTE, BACKSLASH].filter(has).map(character);
  if (safe.length > 0) parts.push(characterClass(safe));
  if (parts.length === 0) throw new SyntaxError('control characters in patterns are not supported');
  return anyOf(parts);
}

/** One character that is none of these, and needs no escape. */
function outside(ranges: readonly Range[]): string {
  const left = without([0, LAST], [...ranges, ...UNSAFE, SURROGATES]);
  if (left.length === 0) throw new SyntaxError('a class of the pattern has no characters');
  return characterClass(left);
}

function without(range: Range, holes: readonly Range[]): Range[] {
  let left: Range[] = [range];
  for (const [from, to] of holes) {
    left = left.flatMap(([first, last]): Range[] => {
      if (to < first || from > last) return [[first, last]];
      const parts: Range[] = [];
      if (first < from) parts.push([first, from - 1]);
      if (to < last) parts.push([to + 1, last]);
      return parts;
    });
  }
  return left;
}

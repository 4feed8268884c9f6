import type { Stretch } from './split.js';
import type { Tokenizer } from './tokenizer.js';

/** What `Tokenizer.encode` puts in front of every text (BOS in many models, mostly nothing or one id). */
export function textPrefix(tokenizer: Tokenizer): number[] {
  const bare = tokenizer.encode('a', { addSpecialTokens: false });
  const whole = tokenizer.encode('a');
  for (let at = 0; at + bare.length <= whole.length; at++) {
    if (bare.every((id, i) => whole[at + i] === id)) return whole.slice(0, at);
  }
  return [];
}

/** Characters a token of this text has on average, from a few samples of it. */
export function charactersPerToken(tokenizer: Tokenizer, text: string): number {
  const sample = 4000;
  const places = text.length <= 3 * sample ? [0] : [0, 1 / 3, 2 / 3];
  let characters = 0;
  let tokens = 0;
  for (const place of places) {
    const start = Math.floor(place * text.length);
    const part = text.slice(start, start + (places.length === 1 ? 3 * sample : sample));
    characters += part.length;
    tokens += tokenizer.encode(part, { addSpecialTokens: false }).length;
  }
  return Math.max(0.25, characters / Math.max(1, tokens));
}

export interface CutOptions {
  /** Tokens of a window, the prefix counted. */
  readonly window: number;
  /** The most windows to give. */
  readonly count: number;
  readonly prefix: readonly number[];
  readonly charactersPerToken: number;
  /** Windows that are left out. */
  readonly refuse: (ids: readonly number[]) => boolean;
}

export interface Cut {
  readonly windows: number[][];
  /** Tokens that the stretches were found to hold, as far as they were read. */
  readonly tokens: number;
  /** Windows that `refuse` left out. */
  readonly refused: number;
}

/**
 * Cuts windows of one length out of the stretches of a text, evenly from all of them. Each lies within one
 * stretch; what is left of a stretch at its end is not used. No more of a long text is tokenised than needed.
 */
export function cutWindows(
  tokenizer: Tokenizer,
  text: string,
  stretches: readonly Stretch[],
  options: CutOptions,
): Cut {
  if (stretches.length === 0) return { windows: [], tokens: 0, refused: 0 };
  for (let quota = Math.ceil(options.count / stretches.length); ; quota *= 2) {
    let allRead = true;
    let tokens = 0;
    let refused = 0;
    const byStretch = stretches.map((stretch) => {
      const read = readStretch(tokenizer, text, stretch, quota, options);
      allRead &&= read.whole;
      tokens += read.tokens;
      const kept = read.windows.filter((ids) => !options.refuse(ids));
      refused += read.windows.length - kept.length;
      return kept;
    });
    const found = byStretch.flat();
    if (found.length < options.count && !allRead) continue;
    return { windows: evenly(found, options.count), tokens, refused };
  }
}

function readStretch(
  tokenizer: Tokenizer,
  text: string,
  { start, end }: Stretch,
  quota: number,
  options: CutOptions,
): { windows: number[][]; tokens: number; whole: boolean } {
  const size = options.window - options.prefix.length;
  // Half as much again, for places where tokens are longer than elsewhere.
  const reach = Math.ceil(quota * size * options.charactersPerToken * 1.5) + 64;
  const whole = start + reach >= end;
  const ids = tokenizer.encode(text.slice(start, whole ? end : start + reach), { addSpecialTokens: false });
  // The last tokens before a cut can be parts of longer ones.
  const usable = whole ? ids.length : Math.max(0, ids.length - 8);
  const windows: number[][] = [];
  for (let at = 0; at + size <= usable && (whole || windows.length < quota); at += size) {
    windows.push([...options.prefix, ...ids.slice(at, at + size)]);
  }
  return { windows, tokens: usable, whole };
}

/** `count` of a list, spread over it; the whole list where it is not longer. */
function evenly<T>(list: readonly T[], count: number): T[] {
  if (list.length <= count) return [...list];
  return Array.from({ length: count }, (_, i) => list[Math.floor(((i + 0.5) * list.length) / count)]!);
}

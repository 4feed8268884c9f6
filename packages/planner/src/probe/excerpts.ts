import { UsageError } from '@cqil/core';
import { encodeStart, type Tokenizer } from '../evaluate/tokenizer.js';

export interface ExcerptOptions {
  /** How many tokens in all. */
  readonly tokens: number;
  /** Tokens of each excerpt. */
  readonly window: number;
}

/**
 * Takes excerpts of one length, spread evenly over each text and in equal parts from all texts: what a model
 * does differs more between places of a text than within one.
 *
 * @returns token ids by text, then by excerpt; a text that is too short gives what it has
 * @throws UsageError `TEXT_TOO_SHORT` when all texts together give fewer than 2 tokens
 */
export function excerpts(
  tokenizer: Tokenizer,
  texts: readonly string[],
  options: ExcerptOptions,
): number[][][] {
  const { tokens, window } = options;
  const share = Math.ceil(tokens / texts.length);
  const taken = texts.map((text) => fromText(tokenizer, text, share, window));
  const found = taken.flat(2).length;
  if (found < 2) {
    throw new UsageError('TEXT_TOO_SHORT', 'The text is too short to measure anything on.', {
      expected: `about ${tokens} tokens`,
      found: `${found}`,
      hint: 'Give a longer text.',
    });
  }
  return taken;
}

function fromText(tokenizer: Tokenizer, text: string, share: number, window: number): number[][] {
  const count = Math.ceil(share / window);
  const list: number[][] = [];
  let left = share;
  let end = 0;
  for (let i = 0; i < count; i++) {
    // A text shorter than what is asked of it is taken from where the last excerpt ended.
    const start = Math.max(end, paragraphStart(text, Math.floor((text.length * i) / count)));
    const rest = text.slice(start);
    const ids = encodeStart(tokenizer, rest, Math.min(window, left));
    if (ids.length < 2) continue;
    list.push(ids);
    left -= ids.length;
    end = start + tokenizer.decode(ids, { skipSpecialTokens: true }).length;
  }
  return list;
}

/** The start of the next paragraph or sentence near a place, so that excerpts do not begin inside a word. */
function paragraphStart(text: string, from: number): number {
  if (from === 0) return 0;
  const near = text.slice(from, from + 2000);
  const found = /\n\s*\n\s*|[.!?]["']?\s+|\s+/g;
  let best: { index: number; rank: number } | undefined;
  for (const match of near.matchAll(found)) {
    const rank = /\n\s*\n/.test(match[0]) ? 2 : match[0].length > 1 && /[.!?]/.test(match[0]) ? 1 : 0;
    if (best === undefined || rank > best.rank) best = { index: match.index + match[0].length, rank };
    if (rank === 2) break;
  }
  return from + (best?.index ?? 0);
}

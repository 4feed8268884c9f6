import { UsageError } from '@cqil/core';
import { paragraphStart } from '../evaluate/borders.js';
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

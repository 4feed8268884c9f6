import { UsageError } from '@cqil/core';

/** A part of a text that is run at once. */
export interface Window {
  /** Index of its first token in the text. */
  readonly begin: number;
  readonly ids: readonly number[];
  /** Index within `ids` of the first token whose prediction counts; at least 1. */
  readonly scoreFrom: number;
}

export interface WindowOptions {
  /** Tokens run at once, at most; 512 when absent. */
  readonly window?: number;
  /** Tokens from one window's begin to the next; as many as `window` when absent. */
  readonly stride?: number;
}

export const DEFAULT_WINDOW = 512;

/**
 * Cuts a text into windows such that every token is predicted once at most, with as much context as its
 * window gives: a strided sliding window. The first token is predicted by nothing, and with
 * `stride = window` neither is the first of any window.
 *
 * @throws UsageError `WINDOW_INVALID`, `TEXT_TOO_SHORT` (fewer than 2 tokens)
 */
export function windows(ids: readonly number[], options: WindowOptions = {}): Window[] {
  const window = options.window ?? DEFAULT_WINDOW;
  const stride = options.stride ?? window;
  const whole = Number.isInteger(window) && Number.isInteger(stride);
  if (!whole || window < 2 || stride < 1 || stride > window) {
    throw new UsageError('WINDOW_INVALID', 'The window and the stride make no sense.', {
      expected: 'a window of 2 or more tokens, a stride of 1 or more and not over the window',
      found: `window ${window}, stride ${stride}`,
    });
  }
  if (ids.length < 2) {
    throw new UsageError('TEXT_TOO_SHORT', 'The text is too short to measure anything on.', {
      expected: 'at least 2 tokens',
      found: `${ids.length}`,
      hint: 'Give a longer text.',
    });
  }
  const list: Window[] = [];
  let scored = 1;
  for (let begin = 0; ; begin += stride) {
    const end = Math.min(begin + window, ids.length);
    const scoreFrom = Math.max(1, scored - begin);
    if (begin + scoreFrom < end) list.push({ begin, ids: ids.slice(begin, end), scoreFrom });
    scored = end;
    if (end === ids.length) return list;
  }
}

/** How many tokens' predictions count in these windows. */
export function scoredTokens(list: readonly Window[]): number {
  return list.reduce((sum, { ids, scoreFrom }) => sum + ids.length - scoreFrom, 0);
}

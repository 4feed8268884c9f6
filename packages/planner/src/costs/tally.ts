import type { ComparedStreamScores } from '../parts/index.js';

/** Sums over predicted tokens, by kind of text. All numbers are finite, so that they can stand in JSON. */
export interface KindSums {
  readonly kind: number;
  readonly tokens: number;
  readonly kl: number;
  /** −ln p over that of the original. */
  readonly crossEntropy: number;
  readonly agrees: number;
}

/** Means over predicted tokens. */
export interface Means {
  readonly tokens: number;
  /** KL(original ‖ this), nats a token. */
  readonly kl: number;
  /** Cross-entropy over that of the original, nats a token. */
  readonly crossEntropy: number;
  /** Share of tokens for which the original's best guess is the best here, too. */
  readonly top1: number;
}

export interface KindMeans extends Means {
  readonly kind: string;
}

/**
 * Sums of a batch of windows.
 *
 * @param kinds of each window
 * @param loss of the original
 */
export function sumByKind(
  kinds: readonly number[],
  loss: Float32Array,
  found: ComparedStreamScores,
): KindSums[] {
  const perWindow = loss.length / kinds.length;
  return [...new Set(kinds)]
    .sort((a, b) => a - b)
    .map((kind) => {
      const sums = { kind, tokens: 0, kl: 0, crossEntropy: 0, agrees: 0 };
      for (const [window, of] of kinds.entries()) {
        if (of !== kind) continue;
        for (let at = window * perWindow; at < (window + 1) * perWindow; at++) {
          sums.kl += found.kl[at]!;
          sums.crossEntropy += found.loss[at]! - loss[at]!;
          sums.agrees += found.agrees[at]!;
        }
        sums.tokens += perWindow;
      }
      return sums;
    });
}

/** Means of sums that come batch by batch: over all tokens, and by kind in the order of `names`. */
export function meansOf(
  names: readonly string[],
  sums: readonly KindSums[],
): Means & { readonly kinds: KindMeans[] } {
  const kinds = names.flatMap((name, kind) => {
    const of = sums.filter((sum) => sum.kind === kind);
    return of.length === 0 ? [] : [{ kind: name, ...means(of) }];
  });
  return { ...means(sums), kinds };
}

function means(sums: readonly KindSums[]): Means {
  const tokens = sums.reduce((sum, part) => sum + part.tokens, 0);
  const mean = (of: 'kl' | 'crossEntropy' | 'agrees') =>
    sums.reduce((sum, part) => sum + part[of], 0) / tokens;
  return { tokens, kl: mean('kl'), crossEntropy: mean('crossEntropy'), top1: mean('agrees') };
}

import { riskPValue } from './bound.js';

/** What was seen of a run of neighbouring tokens at some borders of the stack. */
export interface Segment {
  /** Confidence, the higher the surer, `[borders][tokens]`. */
  readonly scores: readonly Float32Array[];
  /** 1 where the border's own most likely token is the whole model's, `[borders][tokens]`. */
  readonly agrees: readonly Uint8Array[];
}

/** What leaving at the first border with a score of at least `threshold` gives. */
export interface PolicyResult {
  /** Share of tokens that are the whole model's. */
  readonly agreement: number;
  /** Tokens that leave at each border, and last those that leave at none; shares of all. */
  readonly exits: readonly number[];
}

/** @param borders which of the segments' borders may be left at, ascending */
export function applyPolicy(
  segments: readonly Segment[],
  borders: readonly number[],
  threshold: number,
): PolicyResult {
  const exits = new Array<number>(borders.length + 1).fill(0);
  let right = 0;
  let total = 0;
  for (const segment of segments) {
    const tokens = segment.agrees[0]?.length ?? 0;
    total += tokens;
    for (let t = 0; t < tokens; t++) {
      const at = exitOf(segment, borders, threshold, t);
      exits[at]! += 1;
      right += at === borders.length ? 1 : segment.agrees[borders[at]!]![t]!;
    }
  }
  return { agreement: total === 0 ? 1 : right / total, exits: exits.map((count) => count / (total || 1)) };
}

function exitOf({ scores }: Segment, borders: readonly number[], threshold: number, t: number): number {
  const at = borders.findIndex((border) => scores[border]![t]! >= threshold);
  return at === -1 ? borders.length : at;
}

export interface ExitPromise {
  /** Least share of tokens that are the whole model's, in expectation. */
  readonly agreement: number;
  /** Probability that the promise holds. */
  readonly confidence: number;
}

/**
 * The least threshold that keeps a promise: thresholds from the highest down, as long as the test for each rejects that
 * the loss is above what is promised (fixed sequence testing, Learn then Test, arXiv 2110.01052, as CALM uses it,
 * arXiv 2207.07061). The loss of a segment is its share of tokens that are not the whole model's.
 *
 * @param thresholds descending
 * @returns `undefined` where not even the highest passes
 */
export function promisedThreshold(
  segments: readonly Segment[],
  borders: readonly number[],
  thresholds: readonly number[],
  { agreement, confidence }: ExitPromise,
): number | undefined {
  let passed: number | undefined;
  for (const threshold of thresholds) {
    const losses = segments.map((segment) => 1 - applyPolicy([segment], borders, threshold).agreement);
    const mean = losses.reduce((a, b) => a + b, 0) / (losses.length || 1);
    if (riskPValue(losses.length, mean, 1 - agreement) > 1 - confidence) break;
    passed = threshold;
  }
  return passed;
}

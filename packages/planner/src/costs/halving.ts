import type { CandidateGroup } from '@cqil/core';
import { badOption } from './candidates.js';

export type RankedBy = 'kl' | 'hidden' | 'dependency';

/** When and how hopeless candidates are dropped. */
export interface HalvingOptions {
  /** Share of the windows that all candidates are measured on; 0.25 when absent. */
  readonly share?: number;
  /** Share of the candidates of each group size that goes on after each round; 0.5 when absent. */
  readonly keep?: number;
  /** By what they are ranked; the lower the better. `'kl'` when absent. */
  readonly by?: RankedBy;
}

export const DEFAULT_HALVING: Required<HalvingOptions> = { share: 0.25, keep: 0.5, by: 'kl' };

/** @throws UsageError `COSTS_OPTIONS` */
export function halvingOf(options: HalvingOptions | false | undefined): Required<HalvingOptions> | null {
  if (options === false) return null;
  const { share, keep, by } = { ...DEFAULT_HALVING, ...options };
  for (const [name, value] of Object.entries({ share, keep })) {
    if (value > 0 && value <= 1) continue;
    throw badOption(`halving.${name}`, 'a share: above 0 and up to 1', String(value));
  }
  return { share, keep, by };
}

/**
 * After how many windows each round ends, the last after all of them. Each round's end is twice the one before, so
 * where half of the candidates go on all rounds cost about the same (successive halving, arXiv 1502.07943).
 *
 * @param least windows in the first round: one of each text
 */
export function roundEnds(
  windows: number,
  halving: Required<HalvingOptions> | null,
  least: number,
): number[] {
  if (halving === null) return [windows];
  const ends: number[] = [];
  for (let end = Math.max(Math.ceil(windows * halving.share), least); end < windows; end *= 2) ends.push(end);
  return [...ends, windows];
}

/** How many of `count` candidates of one size go on. */
export function keptOf(count: number, keep: number): number {
  return Math.ceil(count * keep);
}

/**
 * The candidates that go on: of each group size the share `keep` with the lowest scores, since larger groups cost more
 * and would all be dropped else. Of equal scores the first candidates stay.
 *
 * @param active indices into `candidates`
 * @param score by index
 * @returns indices, ascending
 */
export function survivors(
  candidates: readonly CandidateGroup[],
  active: readonly number[],
  score: (candidate: number) => number,
  keep: number,
): number[] {
  const bySize = new Map<number, number[]>();
  for (const candidate of active) {
    const size = candidates[candidate]!.layers.length;
    bySize.set(size, [...(bySize.get(size) ?? []), candidate]);
  }
  return [...bySize.values()]
    .flatMap((of) => of.sort((a, b) => score(a) - score(b) || a - b).slice(0, keptOf(of.length, keep)))
    .sort((a, b) => a - b);
}

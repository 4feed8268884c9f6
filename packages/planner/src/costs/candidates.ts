import { type Bypass, type CandidateGroup, effectiveBypass, UsageError } from '@cqil/core';
import type { Anatomy } from '../anatomy/index.js';
import { attentionRead } from '../parts/index.js';
import { groupObstacles } from '../rewrite/branches.js';

export interface CandidateOptions {
  /** Layers in a group; 2, 3 and 4 when absent. */
  readonly groupSizes?: readonly number[];
  /** Bypass distances; all that differ in effect when absent. */
  readonly bypasses?: readonly Bypass[];
}

export const DEFAULT_GROUP_SIZES: readonly number[] = [2, 3, 4];

/**
 * All groups that a plan for a model could have: every run of neighbours that the rewriter takes, with every bypass
 * that makes a difference there. Of two that let the same attention outputs reach the same FFNs the first stays, so
 * parallel blocks have bypass 0 alone.
 *
 * @returns by first layer, then size, then bypass in ascending order, `'full'` last
 * @throws UsageError `COSTS_OPTIONS`
 */
export function candidateGroups(anatomy: Anatomy, options: CandidateOptions = {}): CandidateGroup[] {
  const sizes = [...new Set(options.groupSizes ?? DEFAULT_GROUP_SIZES)].sort((a, b) => a - b);
  checkOptions(sizes, options.bypasses);
  const candidates: CandidateGroup[] = [];
  for (let first = 0; first < anatomy.layers.length; first++) {
    for (const size of sizes) {
      if (first + size > anatomy.layers.length) continue;
      const layers = Array.from({ length: size }, (_, i) => first + i);
      const known = new Set<string>();
      for (const bypass of bypassesOf(layers, options.bypasses)) {
        const group = { layers, bypass };
        const effect = effectOf(group, anatomy);
        if (known.has(effect) || groupObstacles(group, anatomy).size > 0) continue;
        known.add(effect);
        candidates.push(group);
      }
    }
  }
  return candidates;
}

function bypassesOf(layers: readonly number[], wanted: readonly Bypass[] | undefined): Bypass[] {
  const all: readonly Bypass[] = wanted ?? [...layers.keys(), 'full'];
  const rank = (bypass: Bypass) => (bypass === 'full' ? Number.POSITIVE_INFINITY : bypass);
  return [...new Set(all.map((bypass) => effectiveBypass({ layers, bypass })))].sort((a, b) =>
    rank(a) === rank(b) ? 0 : rank(a) - rank(b),
  );
}

/** Whose attention each FFN of the group reads. */
function effectOf({ layers, bypass }: CandidateGroup, anatomy: Anatomy): string {
  return layers
    .filter((j) => anatomy.layers[j]?.ffn !== undefined)
    .map((j) => attentionRead(layers, bypass, j, anatomy.layers).join())
    .join(';');
}

function checkOptions(sizes: readonly number[], bypasses: readonly Bypass[] | undefined): void {
  const badSize = sizes.find((size) => !Number.isInteger(size) || size < 2);
  if (sizes.length === 0 || badSize !== undefined) {
    throw badOption('groupSizes', 'one whole number or more, each 2 or more', String(badSize ?? 'none'));
  }
  const badBypass = bypasses?.find(
    (bypass) => bypass !== 'full' && (!Number.isInteger(bypass) || bypass < 0),
  );
  if (bypasses?.length === 0 || badBypass !== undefined) {
    throw badOption('bypasses', 'one distance or more: 0, 1, ... or "full"', String(badBypass ?? 'none'));
  }
}

export function badOption(option: string, expected: string, found: string): UsageError {
  return new UsageError('COSTS_OPTIONS', `The option "${option}" makes no sense.`, { expected, found });
}

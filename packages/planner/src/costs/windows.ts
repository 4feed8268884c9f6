import { createHash } from 'node:crypto';
import { UsageError } from '@cqil/core';
import type { KindWindows, TextSet } from '../evaluate/index.js';

/**
 * Text, cut into windows, to measure costs on: the `kinds` of a `TextSet` are such. Costs are told apart by kind, and
 * several entries may have one. Every token but the first of a window is predicted.
 */
export interface CostText extends KindWindows {
  /** Where it came from, for the record. */
  readonly sources?: readonly TextSource[];
}

export interface TextSource {
  readonly spec: string;
  /** Of the text. */
  readonly sha256: string;
}

/** The texts of a set with their sources. */
export function costTexts(set: TextSet): CostText[] {
  return set.kinds.map(({ kind, windows }) => ({
    kind,
    windows,
    sources: set.texts.filter((text) => text.kind === kind).map(({ spec, sha256 }) => ({ spec, sha256 })),
  }));
}

/** Windows of one length that are run at once. */
export interface WindowBatch {
  readonly ids: readonly (readonly number[])[];
  /** Of each window, an index into the kinds. */
  readonly kinds: readonly number[];
}

export interface BatchOptions {
  /** Tokens in a batch, unless one window has more. */
  readonly positions: number;
  /** Whether windows may be run together at all: see `ModelParts.exactBatches`. */
  readonly together: boolean;
}

/** The kinds of texts in the order in which they appear. */
export function kindsOf(texts: readonly CostText[]): string[] {
  return [...new Set(texts.map(({ kind }) => kind))];
}

/**
 * The windows of all texts in turn, one of each as long as there is one, so that every beginning of the list is a sample
 * of all of them.
 *
 * @param cuts numbers of windows behind which a batch ends; ascending
 * @returns batches, and how many of them lie before each cut
 * @throws UsageError `COSTS_TEXT` where there is no window, or one too short
 */
export function batchWindows(
  texts: readonly CostText[],
  options: BatchOptions,
  cuts: readonly number[] = [],
): { batches: WindowBatch[]; ends: number[] } {
  const kinds = kindsOf(texts);
  const list = inTurn(texts).map(({ kind, ids }) => ({ kind: kinds.indexOf(kind), ids }));
  const batches: { ids: (readonly number[])[]; kinds: number[] }[] = [];
  const ends: number[] = [];
  let open = false;
  for (const [index, { kind, ids }] of list.entries()) {
    while (cuts[ends.length] === index) {
      ends.push(batches.length);
      open = false;
    }
    const last = batches.at(-1);
    const fits =
      open &&
      options.together &&
      last?.ids[0]?.length === ids.length &&
      (last.ids.length + 1) * ids.length <= options.positions;
    if (fits) {
      last.ids.push(ids);
      last.kinds.push(kind);
    } else batches.push({ ids: [ids], kinds: [kind] });
    open = true;
  }
  while (ends.length < cuts.length) ends.push(batches.length);
  return { batches, ends };
}

/** How many windows there are in all. */
export function countWindows(texts: readonly CostText[]): number {
  return texts.reduce((sum, { windows }) => sum + windows.length, 0);
}

/** @throws UsageError `COSTS_TEXT` */
export function checkTexts(texts: readonly CostText[], skipFirst: number): void {
  const least = skipFirst + 2;
  const short = texts.flatMap(({ windows }) => windows).find((window) => window.length < least);
  if (short === undefined && countWindows(texts) > 0) return;
  throw new UsageError('COSTS_TEXT', 'There is not enough text to measure on.', {
    expected: `one window or more, each of ${least} tokens or more`,
    found: short === undefined ? 'none' : `a window of ${short.length}`,
    hint: 'Give longer texts.',
  });
}

/** Of the token ids: decimal, one a line, an empty line between windows. */
export function hashWindows({ windows }: CostText): string {
  const hash = createHash('sha256');
  for (const window of windows) hash.update(`${window.join('\n')}\n\n`);
  return hash.digest('hex');
}

function inTurn(texts: readonly CostText[]): { kind: string; ids: readonly number[] }[] {
  const longest = Math.max(0, ...texts.map(({ windows }) => windows.length));
  return Array.from({ length: longest }, (_, i) =>
    texts.flatMap(({ kind, windows }) => {
      const ids = windows[i];
      return ids === undefined ? [] : [{ kind, ids }];
    }),
  ).flat();
}

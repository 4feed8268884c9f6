import { MetricError, PlanError } from '../errors.js';
import { MAX_LAYERS } from '../plan/schema.js';
import type { Bypass, Plan } from '../plan/types.js';
import { checkBypass, checkWhole, runsOf, uniformPlan } from './uniform.js';

/** What `choosePlan` chooses from. */
export interface ChooseOptions {
  /** Number of layers of the model. */
  readonly layers: number;
  /**
   * Similarity of layer inputs, larger is more alike: entry [a][j] compares the inputs of layers a and j. Rows and
   * columns past the number of layers (the output of the last one) are not read. Of a distance, pass 1 − distance.
   */
  readonly similarity: readonly (readonly number[])[];
  /** The least similarity at which two inputs count as the same. */
  readonly threshold: number;
  /** P: the group sizes to choose from (default 2, 3 and 4). */
  readonly groupSizes?: readonly number[] | undefined;
  /** Layers before this one stay alone (default 0). */
  readonly from?: number | undefined;
  /** This layer and those after it stay alone (default `layers`). */
  readonly to?: number | undefined;
  /** D of all groups (default 0). */
  readonly bypass?: Bypass | undefined;
}

/** What was chosen, and why. */
export interface PlanChoice {
  readonly plan: Plan;
  /** P, S and E, or undefined where no two neighbouring layers are similar enough. */
  readonly uniform: { readonly groupSize: number; readonly start: number; readonly end: number } | undefined;
  /** The lowest and the mean similarity of a layer's input to that of its group's first layer; 1 without groups. */
  readonly lowest: number;
  readonly mean: number;
}

/**
 * Chooses S, E and P from the similarity of layer inputs.
 *
 * CQIL (arXiv 2404.06709) groups layers whose inputs are much alike, and states a plan by P, S, E and D; its
 * published code takes them as given. The rule here, from what a group does: each member reads the first member's
 * input in place of its own, so a group is *quasi-independent* at a threshold t when similarity[first][j] ≥ t for
 * every member j. Of all (P, S, E) whose groups all are, the one with the fewest sequential steps is taken; among
 * those, the one with the highest mean similarity; then the smaller P, then the smaller S.
 *
 * The last group may be shorter than P, but E is then a layer that is really grouped.
 *
 * @throws PlanError `PLAN_PARAMETERS`; MetricError `MATRIX_SHAPE` where the matrix is not square, too small for
 * the layers, or holds something other than finite numbers.
 */
export function choosePlan(options: ChooseOptions): PlanChoice {
  const { layers, similarity, threshold, groupSizes = [2, 3, 4], from = 0, bypass = 0 } = options;
  const to = options.to ?? layers;
  checkWhole('layers', layers, 1, MAX_LAYERS);
  checkWhole('from', from, 0, layers);
  checkWhole('to', to, from, layers);
  checkBypass(bypass);
  if (!Number.isFinite(threshold)) {
    throw new PlanError('PLAN_PARAMETERS', 'not a threshold', {
      path: 'threshold',
      expected: 'a finite number',
      found: String(threshold),
    });
  }
  for (const size of groupSizes) checkWhole('groupSizes', size, 2, Number.MAX_SAFE_INTEGER);
  checkMatrix(similarity, layers);

  let best: Candidate | undefined;
  for (const groupSize of [...new Set(groupSizes)].sort((a, b) => a - b)) {
    for (let start = from; start < to; start++) {
      const end = furthestEnd(similarity, threshold, start, to, groupSize);
      if (end - start < 2) continue;
      const candidate = measure(similarity, start, end, groupSize);
      if (best === undefined || isBetter(candidate, best)) best = candidate;
    }
  }

  const range = best ?? { groupSize: 1, start: from, end: from };
  const { groupSize, start, end } = range;
  const uniform = uniformPlan({ layers, groupSize, start, end, bypass });
  const plan: Plan = {
    ...uniform,
    provenance: { method: 'similarity threshold', threshold, groupSize, start, end, bypass },
  };
  return {
    plan,
    uniform: best === undefined ? undefined : { groupSize, start, end },
    lowest: best?.lowest ?? 1,
    mean: best?.mean ?? 1,
  };
}

interface Candidate {
  readonly groupSize: number;
  readonly start: number;
  readonly end: number;
  /** Sequential steps saved. */
  readonly saved: number;
  readonly lowest: number;
  readonly mean: number;
}

/** One past the last layer that groups of `size` from `start` reach while every member passes. */
function furthestEnd(
  similarity: readonly (readonly number[])[],
  threshold: number,
  start: number,
  to: number,
  size: number,
): number {
  let end = start;
  for (let first = start; first < to; first += size) {
    let length = 1;
    while (length < size && first + length < to && similarity[first]![first + length]! >= threshold) length++;
    if (length > 1) end = first + length;
    if (length < size) break;
  }
  return end;
}

function measure(
  similarity: readonly (readonly number[])[],
  start: number,
  end: number,
  groupSize: number,
): Candidate {
  let saved = 0;
  let sum = 0;
  let lowest = Number.POSITIVE_INFINITY;
  for (const run of runsOf(start, end, groupSize)) {
    for (const layer of run.slice(1)) {
      const value = similarity[run[0]!]![layer]!;
      saved++;
      sum += value;
      lowest = Math.min(lowest, value);
    }
  }
  return { groupSize, start, end, saved, lowest, mean: sum / saved };
}

function isBetter(a: Candidate, b: Candidate): boolean {
  return a.saved !== b.saved ? a.saved > b.saved : a.mean > b.mean;
}

function checkMatrix(matrix: readonly (readonly number[])[], layers: number): void {
  const fault = (found: string) =>
    new MetricError('MATRIX_SHAPE', 'This is not a similarity matrix of the layers of the model.', {
      expected: `a square matrix of finite numbers, at least ${layers} x ${layers}`,
      found,
    });
  if (matrix.length < layers) throw fault(`${matrix.length} rows`);
  for (const [i, row] of matrix.entries()) {
    if (row.length !== matrix.length) throw fault(`${row.length} columns in row ${i}, ${matrix.length} rows`);
    const j = row.findIndex((value) => !Number.isFinite(value));
    if (j >= 0) throw fault(`${row[j]} in row ${i}, column ${j}`);
  }
}

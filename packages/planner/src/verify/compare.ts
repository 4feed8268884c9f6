import { asFloat32, type DecoderSignature, type TensorValue } from '@cqil/runtime-gpu';
import type { TestCase } from './cases.js';
import type { CaseRun } from './run-case.js';

/** How far two models are apart on one case. */
export interface CaseDifference {
  /** Largest distance of two logits; infinite where one has no number or is missing. */
  readonly logits: number;
  /** Largest distance in the caches after the last step, in units of each tensor's size (RMS, at least 1). */
  readonly cache: number;
  /** The cache tensor it is in. */
  readonly cacheAt: string | undefined;
  /** Positions compared: padding is not. */
  readonly positions: number;
  /** Positions with another best token, although the reference's two best are further apart than the tolerance. */
  readonly argmaxDifferences: number;
  /** Positions with another best token where they are not. */
  readonly nearTies: number;
}

/**
 * Compares what two models gave for a case, at every position that is a token.
 *
 * @param tolerance two best logits of the reference that are closer than this may change places
 */
export function compareRuns(
  reference: CaseRun,
  found: CaseRun,
  testCase: TestCase,
  signature: DecoderSignature,
  tolerance: number,
): CaseDifference {
  let logits = 0;
  let positions = 0;
  let argmaxDifferences = 0;
  let nearTies = 0;
  for (const [index, step] of testCase.steps.entries()) {
    const a = logitRows(reference.steps[index]?.[signature.logits], step.mask);
    const b = logitRows(found.steps[index]?.[signature.logits], step.mask);
    if (a.length === 0 || a.length !== b.length) logits = Number.POSITIVE_INFINITY;
    for (const [row, expected] of a.entries()) {
      const actual = b[row];
      if (actual === undefined) continue;
      positions += 1;
      logits = Math.max(logits, maxAbsDifference(expected, actual));
      const { index: top, margin } = best(expected);
      if (best(actual).index === top) continue;
      if (margin > tolerance) argmaxDifferences += 1;
      else nearTies += 1;
    }
  }
  return {
    logits,
    positions,
    argmaxDifferences,
    nearTies,
    ...cacheDifference(reference, found, testCase, signature),
  };
}

/** Whether a run gave a number for every logit of a token. */
export function allFinite(run: CaseRun, testCase: TestCase, signature: DecoderSignature): boolean {
  return testCase.steps.every((step, index) =>
    logitRows(run.steps[index]?.[signature.logits], step.mask).every((row) => row.every(Number.isFinite)),
  );
}

/** Standard deviation of all logits of a run. */
export function logitSpread(run: CaseRun, testCase: TestCase, signature: DecoderSignature): number {
  let count = 0;
  let sum = 0;
  let squares = 0;
  for (const [index, step] of testCase.steps.entries()) {
    for (const row of logitRows(run.steps[index]?.[signature.logits], step.mask)) {
      for (const value of row) {
        sum += value;
        squares += value * value;
      }
      count += row.length;
    }
  }
  return count === 0 ? 0 : Math.sqrt(Math.max(0, squares / count - (sum / count) ** 2));
}

/** The rows of `[batch, seq, vocabulary]` that belong to tokens; graphs may leave out all but the last ones. */
function logitRows(tensor: TensorValue | undefined, mask: readonly (readonly number[])[]): Float32Array[] {
  if (tensor?.dims.length !== 3) return [];
  const [batch, count, size] = tensor.dims as [number, number, number];
  const data = asFloat32(tensor);
  const rows: Float32Array[] = [];
  for (let sequence = 0; sequence < batch; sequence++) {
    const attended = mask[sequence]?.slice(-count) ?? [];
    for (let position = 0; position < count; position++) {
      if (attended[position] !== 1) continue;
      const start = (sequence * count + position) * size;
      rows.push(data.subarray(start, start + size));
    }
  }
  return rows;
}

function cacheDifference(
  reference: CaseRun,
  found: CaseRun,
  testCase: TestCase,
  signature: DecoderSignature,
): { cache: number; cacheAt: string | undefined } {
  const mask = testCase.steps.at(-1)?.mask ?? [];
  let worst = 0;
  let cacheAt: string | undefined;
  for (const pair of signature.cache) {
    const a = reference.steps.at(-1)?.[pair.present];
    const b = found.steps.at(-1)?.[pair.present];
    const distance = tensorDistance(a, b, (indices) => {
      const { sequenceAxis, batchAxis } = pair;
      if (sequenceAxis === undefined) return true;
      return mask[indices[batchAxis] ?? 0]?.[indices[sequenceAxis] ?? 0] !== 0;
    });
    if (distance <= worst) continue;
    worst = distance;
    cacheAt = pair.present;
  }
  return { cache: worst, cacheAt };
}

/** Largest distance of two tensors over the root mean square of the first (at least 1), where `counts` says so. */
function tensorDistance(
  a: TensorValue | undefined,
  b: TensorValue | undefined,
  counts: (indices: readonly number[]) => boolean,
): number {
  if (a === undefined || b === undefined || a.type !== b.type) return Number.POSITIVE_INFINITY;
  if (a.dims.join() !== b.dims.join()) return Number.POSITIVE_INFINITY;
  const [left, right] = [asFloat32(a), asFloat32(b)];
  const width = a.dims.at(-1) ?? 1;
  const indices = a.dims.map(() => 0);
  let worst = 0;
  let squares = 0;
  let count = 0;
  for (let start = 0; start < left.length; start += width) {
    if (counts(indices)) {
      worst = Math.max(
        worst,
        maxAbsDifference(left.subarray(start, start + width), right.subarray(start, start + width)),
      );
      for (let i = start; i < start + width; i++) squares += (left[i] as number) ** 2;
      count += width;
    }
    advance(indices, a.dims);
  }
  return worst === 0 ? 0 : worst / Math.max(1, Math.sqrt(squares / Math.max(1, count)));
}

/** The next row's place, row-major; the last axis stands still. */
function advance(indices: number[], dims: readonly number[]): void {
  for (let axis = dims.length - 2; axis >= 0; axis--) {
    const next = (indices[axis] as number) + 1;
    indices[axis] = next === dims[axis] ? 0 : next;
    if (next !== dims[axis]) return;
  }
}

/** The largest distance between two lists of numbers; infinite where either has no number or lengths differ. */
export function maxAbsDifference(a: Float32Array, b: Float32Array): number {
  if (a.length !== b.length) return Number.POSITIVE_INFINITY;
  let worst = 0;
  for (let i = 0; i < a.length; i++) {
    const distance = Math.abs((a[i] as number) - (b[i] as number));
    // Comparisons with NaN are false, so that it is not taken for a small distance.
    if (!(distance <= worst)) worst = Number.isNaN(distance) ? Number.POSITIVE_INFINITY : distance;
  }
  return worst;
}

/** The largest value of a row, the first of equal ones, and how far the second lies below it. */
export function best(row: Float32Array): { index: number; margin: number } {
  let index = 0;
  let first = Number.NEGATIVE_INFINITY;
  let second = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < row.length; i++) {
    const value = row[i] as number;
    if (value > first) {
      second = first;
      first = value;
      index = i;
    } else if (value > second) second = value;
  }
  return { index, margin: first - second };
}

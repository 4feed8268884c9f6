import { decoderSignature, type TensorValue } from '@cqil/runtime-gpu';
import { describe, expect, it } from 'vitest';
import { makeCase } from './cases.js';
import { allFinite, best, compareRuns, logitSpread, maxAbsDifference } from './compare.js';
import type { CaseRun } from './run-case.js';

const signature = decoderSignature(
  [
    { name: 'input_ids', elementType: 'int64', shape: ['b', 's'] },
    { name: 'past.0', elementType: 'float32', shape: ['b', 1, 'p', 2] },
  ],
  [
    { name: 'logits', elementType: 'float32', shape: ['b', 's', 2] },
    { name: 'present.0', elementType: 'float32', shape: ['b', 1, 't', 2] },
  ],
);
/** Two sequences, the first position of the second one padding. */
const padded = makeCase('padded', [[1, 2], [3]], []);

function tensor(dims: readonly number[], values: readonly number[]): TensorValue {
  return { type: 'float32', dims, data: Float32Array.from(values) };
}

/** Logits of two tokens at 2 × 2 positions, and a cache of one head with two values. */
function run(
  logits: Readonly<Record<number, number>> = {},
  cache: Readonly<Record<number, number>> = {},
): CaseRun {
  const a = [0, 1, 0, 2, 7, 7, 3, 0];
  const b = [1, 2, 3, 4, 9, 9, 5, 6];
  for (const [index, value] of Object.entries(logits)) a[Number(index)] = value;
  for (const [index, value] of Object.entries(cache)) b[Number(index)] = value;
  return { steps: [{ logits: tensor([2, 2, 2], a), 'present.0': tensor([2, 1, 2, 2], b) }] };
}

const against = (found: CaseRun, tolerance = 0.1) => compareRuns(run(), found, padded, signature, tolerance);

describe('compareRuns', () => {
  it('finds no difference between equal runs', () => {
    expect(against(run())).toEqual({
      logits: 0,
      cache: 0,
      cacheAt: undefined,
      positions: 3,
      argmaxDifferences: 0,
      nearTies: 0,
    });
  });

  it('does not look at padding, neither in logits nor in caches', () => {
    const found = against(run({ 4: Number.NaN, 5: 100 }, { 4: Number.NaN, 5: -100 }));
    expect(found).toMatchObject({ logits: 0, cache: 0 });
  });

  it('finds the largest difference of logits', () => {
    expect(against(run({ 0: 0.25, 6: 2.5 })).logits).toBe(0.5);
  });

  it('finds differences of caches, over their size, and names the tensor', () => {
    const { cache, cacheAt } = against(run({}, { 7: 6.5 }));
    expect(cache).toBeCloseTo(0.5 / Math.sqrt((1 + 4 + 9 + 16 + 25 + 36) / 6), 6);
    expect(cacheAt).toBe('present.0');
  });

  it.each([Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY])(
    'takes %s for no small difference',
    (value) => {
      expect(against(run({ 1: value })).logits).toBe(Number.POSITIVE_INFINITY);
      expect(against(run({}, { 1: value })).cache).toBe(Number.POSITIVE_INFINITY);
    },
  );

  it('counts other best tokens, and near ties apart', () => {
    const near: CaseRun = {
      steps: [{ ...run().steps[0]!, logits: tensor([2, 2, 2], [0, 0.05, 0, 2, 7, 7, 3, 0]) }],
    };
    expect(compareRuns(near, run({ 0: 2, 2: 3 }), padded, signature, 0.1)).toMatchObject({
      argmaxDifferences: 1,
      nearTies: 1,
    });
  });

  it('takes missing or other-shaped outputs for the largest difference', () => {
    expect(against({ steps: [] })).toMatchObject({
      logits: Number.POSITIVE_INFINITY,
      cache: Number.POSITIVE_INFINITY,
    });
    const other: CaseRun = {
      steps: [{ logits: tensor([2, 2, 1], [1, 1, 1, 1]), 'present.0': tensor([2, 1, 1, 2], [1, 1, 1, 1]) }],
    };
    expect(against(other)).toMatchObject({
      logits: Number.POSITIVE_INFINITY,
      cache: Number.POSITIVE_INFINITY,
    });
  });
});

describe('helpers', () => {
  it('know numbers from what is none', () => {
    expect(allFinite(run({ 4: Number.NaN }), padded, signature)).toBe(true);
    expect(allFinite(run({ 6: Number.NaN }), padded, signature)).toBe(false);
  });

  it('measure the spread of logits', () => {
    const values = [0, 1, 0, 2, 3, 0];
    const variance = values.reduce((sum, value) => sum + (value - 1) ** 2, 0) / 6;
    expect(logitSpread(run(), padded, signature)).toBeCloseTo(Math.sqrt(variance), 6);
  });

  it('find the best of a row and its margin', () => {
    expect(best(Float32Array.of(1, 4, 2.5))).toEqual({ index: 1, margin: 1.5 });
    expect(best(Float32Array.of(4, 4))).toEqual({ index: 0, margin: 0 });
  });

  it('take lists of different length for different', () => {
    expect(maxAbsDifference(Float32Array.of(1), Float32Array.of(1, 2))).toBe(Number.POSITIVE_INFINITY);
  });
});

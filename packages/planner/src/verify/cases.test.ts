import { describe, expect, it } from 'vitest';
import { makeCase, makeCases } from './cases.js';

const all = { vocabulary: 50, batches: true, padding: true };

describe('makeCases', () => {
  it('gives the same tokens for the same seed, others for another', () => {
    expect(makeCases(all)).toEqual(makeCases(all));
    expect(makeCases({ ...all, seed: 2 })).not.toEqual(makeCases(all));
  });

  it('draws tokens of the vocabulary', () => {
    const ids = makeCases(all).flatMap(({ steps }) => steps.flatMap((step) => step.ids.flat()));
    expect(Math.max(...ids)).toBeLessThan(50);
    expect(new Set(ids).size).toBeGreaterThan(10);
  });

  it('runs only what the model takes', () => {
    const names = (options: Partial<typeof all>) => makeCases({ ...all, ...options }).map(({ name }) => name);
    expect(names({})).toEqual(['prefill', 'decode', 'padded']);
    expect(names({ padding: false })).toEqual(['prefill', 'decode', 'batch']);
    expect(names({ padding: false, batches: false })).toEqual(['prefill', 'decode']);
  });

  it('ends a text token by token', () => {
    const text = Array.from({ length: 20 }, (_, i) => i);
    const run = makeCases({ ...all, text }).at(-1)!;
    expect(run.name).toBe('text');
    expect(run.steps.map((step) => step.ids[0]!.length)).toEqual([12, ...Array.from({ length: 8 }, () => 1)]);
    expect(run.steps.flatMap((step) => step.ids[0]!)).toEqual(text);
  });

  it('leaves out a text of one token', () => {
    expect(makeCases({ ...all, text: [3] }).map(({ name }) => name)).not.toContain('text');
  });
});

describe('makeCase', () => {
  it('pads on the left and keeps the padding masked while the cache grows', () => {
    const { steps } = makeCase('padded', [[1, 2, 3], [4]], [[5], [6]]);
    expect(steps).toEqual([
      {
        ids: [
          [1, 2, 3],
          [0, 0, 4],
        ],
        mask: [
          [1, 1, 1],
          [0, 0, 1],
        ],
      },
      {
        ids: [[5], [6]],
        mask: [
          [1, 1, 1, 1],
          [0, 0, 1, 1],
        ],
      },
    ]);
  });
});

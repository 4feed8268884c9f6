import { describe, expect, it } from 'vitest';
import { channelMoments, hiddenChange } from './hidden-change.js';

/** Two windows of three positions, two channels; the first position of each is an outlier. */
const state = (values: readonly number[]) => ({ data: Float32Array.from(values), dims: [2, 3, 2] as const });
const base = state([90, 90, 1, 2, 3, 6, 80, 80, 0, 0, 2, 0]);

describe('hiddenChange', () => {
  it('takes the moments of each window over the positions that count', () => {
    const [first, second] = channelMoments(base, 1);
    expect([...first!.mean]).toEqual([2, 4]);
    expect([...first!.deviation]).toEqual([1, 2]);
    expect([...second!.mean]).toEqual([1, 0]);
    expect([...second!.deviation]).toEqual([1, 0]);
  });

  it('is the change of mean and deviation over the size of the deviation', () => {
    const moved = state([0, 0, 1 + 3, 2 + 4, 3 + 3, 6 + 4, 0, 0, -1, 0, 3, 0]);
    const [a, b] = channelMoments(base, 1);
    const [c, d] = channelMoments(moved, 1);
    // Moved by (3, 4), spread as before; then at the same place, spread twice as far in the first channel.
    expect(hiddenChange(a!, c!)).toBeCloseTo(5 / Math.sqrt(5), 12);
    expect(hiddenChange(b!, d!)).toBeCloseTo(1, 12);
    expect(hiddenChange(a!, a!)).toBe(0);
  });

  it('is a number where nothing varies', () => {
    const [flat] = channelMoments(state(Array.from({ length: 12 }, () => 1)), 0);
    const [other] = channelMoments(state(Array.from({ length: 12 }, () => 2)), 0);
    expect(hiddenChange(flat!, flat!)).toBe(0);
    expect(Number.isFinite(hiddenChange(flat!, other!))).toBe(true);
  });
});

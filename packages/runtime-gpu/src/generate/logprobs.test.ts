import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Logprobs } from './logprobs.js';

const row = fc
  .array(fc.oneof(fc.double({ min: -50, max: 50, noNaN: true }), fc.integer({ min: -2, max: 2 })), {
    minLength: 1,
    maxLength: 40,
  })
  .map((values) => Float32Array.from(values));

describe('Logprobs', () => {
  it('are of probabilities that sum to 1', () => {
    fc.assert(
      fc.property(row, (logits) => {
        const position = new Logprobs(logits);
        const sum = [...logits.keys()].reduce((total, id) => total + Math.exp(position.of(id)), 0);
        expect(sum).toBeCloseTo(1, 9);
      }),
    );
  });

  it('come with the most likely first, of equals the lower id', () => {
    fc.assert(
      fc.property(row, fc.nat(45), (logits, count) => {
        const order = [...logits.keys()].sort((a, b) => logits[b]! - logits[a]! || a - b).slice(0, count);
        const top = new Logprobs(logits).top(count);
        expect(top.map(({ id }) => id)).toEqual(order);
        for (const { id, logprob } of top) expect(logprob).toBe(new Logprobs(logits).of(id));
      }),
    );
  });

  it('leave out what is no number', () => {
    const position = new Logprobs(Float32Array.of(Number.NaN, 0, 0, Number.NEGATIVE_INFINITY));
    expect(position.of(1)).toBeCloseTo(Math.log(0.5), 12);
    expect(position.top(4).map(({ id }) => id)).toEqual([1, 2]);
  });
});

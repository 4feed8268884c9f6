import { expect, it } from 'vitest';
import { tokenMask } from './mask.js';

it('leaves out the first tokens of each sequence', () => {
  expect([...tokenMask({ batch: 2, sequence: 3, skipFirst: 1 })]).toEqual([0, 1, 1, 0, 1, 1]);
});

it('counts the first tokens after left padding', () => {
  const attentionMask = [0n, 0n, 1n, 1n, 1n, 1n];
  expect([...tokenMask({ batch: 2, sequence: 3, attentionMask, skipFirst: 1 })]).toEqual([0, 0, 0, 0, 1, 1]);
});

it('keeps everything by default', () => {
  expect([...tokenMask({ batch: 1, sequence: 2 })]).toEqual([1, 1]);
});

it('refuses a mask of another size', () => {
  expect(() => tokenMask({ batch: 1, sequence: 2, attentionMask: [1] })).toThrowError(
    expect.objectContaining({ name: 'MetricError', code: 'ACTIVATION_SHAPE' }),
  );
});

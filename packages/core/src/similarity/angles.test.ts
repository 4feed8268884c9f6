import { expect, it } from 'vitest';
import { angularOf, cosineOf } from './angles.js';

it('is exactly 1 for equal vectors', () => {
  for (const squared of [1e-90, 0.1, 1 / 3, 7, 1e77]) expect(cosineOf(squared, squared, squared)).toBe(1);
});

it('stays in [-1, 1] where rounding would leave it', () => {
  expect(cosineOf(1 + 1e-12, 1, 1)).toBe(1);
  expect(cosineOf(-1 - 1e-12, 1, 1)).toBe(-1);
});

it('has a value for zero vectors', () => {
  expect(cosineOf(0, 0, 0)).toBe(1);
  expect(cosineOf(0, 0, 5)).toBe(0);
});

it('measures angles in half turns', () => {
  expect(angularOf(1)).toBe(0);
  expect(angularOf(0)).toBe(0.5);
  expect(angularOf(-1)).toBe(1);
});

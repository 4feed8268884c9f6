import fc from 'fast-check';
import { expect, it } from 'vitest';
import { dot, hsicScale, triangleSize, uCentre } from './hsic.js';

type Square = number[][];

/** HSIC_1 as Song et al. 2012 write it: [tr(K̃L̃) + 1ᵀK̃1·1ᵀL̃1/((n-1)(n-2)) - 2/(n-2)·1ᵀK̃L̃1] / (n(n-3)). */
function songHsic(k: Square, l: Square): number {
  const n = k.length;
  const off = (m: Square) => m.map((row, i) => row.map((v, j) => (i === j ? 0 : v)));
  const [a, b] = [off(k), off(l)];
  let trace = 0;
  let sumA = 0;
  let sumB = 0;
  let cross = 0;
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < n; j++) {
      trace += a[i]![j]! * b[j]![i]!;
      sumA += a[i]![j]!;
      sumB += b[i]![j]!;
      for (let m = 0; m < n; m++) cross += a[i]![j]! * b[j]![m]!;
    }
  }
  return (trace + (sumA * sumB) / ((n - 1) * (n - 2)) - (2 / (n - 2)) * cross) / (n * (n - 3));
}

function centredHsic(k: Square, l: Square): number {
  const n = k.length;
  const size = triangleSize(n);
  const out = new Float64Array(2 * size);
  uCentre(Float64Array.from(k.flat()), n, out, 0);
  uCentre(Float64Array.from(l.flat()), n, out, size);
  return hsicScale(n) * dot(out, 0, size, size);
}

const symmetric = (n: number) =>
  fc
    .array(fc.double({ min: -10, max: 10, noNaN: true }), { minLength: n * n, maxLength: n * n })
    .map((values) =>
      Array.from({ length: n }, (_, i) =>
        Array.from({ length: n }, (_, j) => values[Math.min(i, j) * n + Math.max(i, j)]!),
      ),
    );

it('equals the published estimator', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 4, max: 9 }).chain((n) => fc.tuple(symmetric(n), symmetric(n))),
      ([k, l]) => {
        expect(centredHsic(k, l)).toBeCloseTo(songHsic(k, l), 8);
      },
    ),
  );
});

it('does not see what is added to whole rows and columns, so a shared mean costs no digits', () => {
  const k = [
    [0, 1, 2, 0.5],
    [1, 0, 0.25, 3],
    [2, 0.25, 0, 1],
    [0.5, 3, 1, 0],
  ];
  const shifted = k.map((row, i) => row.map((v, j) => v + 1e6 * (i + 1) + 1e6 * (j + 1)));
  expect(centredHsic(shifted, k)).toBeCloseTo(centredHsic(k, k), 7);
});

it('gives the energy of what it read', () => {
  const out = new Float64Array(6);
  expect(uCentre(new Float64Array(16).fill(2), 4, out, 0)).toBe(24);
  expect([...out].every((v) => Math.abs(v) < 1e-12)).toBe(true);
});

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { roundFactor } from './core.js';
import { maskOf, positionsOf, type Situation } from './probe.js';
import { agree, attention, isVisible, randomNumbers, rotated, scores, toHeads } from './reference.js';

const sizes = fc.record({
  kvHeads: fc.integer({ min: 1, max: 3 }),
  repeats: fc.integer({ min: 1, max: 3 }),
  headSize: fc.constantFrom(2, 4, 8),
});
const situations: fc.Arbitrary<Situation> = fc
  .record({
    past: fc.integer({ min: 0, max: 4 }),
    seq: fc.integer({ min: 1, max: 4 }),
    batch: fc.integer({ min: 1, max: 2 }),
  })
  .chain(({ past, seq, batch }) =>
    fc
      .array(fc.integer({ min: 0, max: past + seq - 1 }), { minLength: batch, maxLength: batch })
      .map((padding) => ({ past, seq, padding })),
  );

describe('attention by its formula', () => {
  it('gives a mean of what is visible: equal values come out as they are', () => {
    fc.assert(
      fc.property(
        situations,
        sizes,
        fc.integer(),
        ({ past, seq, padding }, { kvHeads, repeats, headSize }, seed) => {
          const heads = { heads: kvHeads * repeats, kvHeads, headSize };
          const situation = { past, seq, padding };
          const total = past + seq;
          const q = randomNumbers([padding.length, heads.heads, seq, headSize], seed);
          const k = randomNumbers([padding.length, kvHeads, total, headSize], seed + 1);
          const v = { dims: k.dims, data: new Float32Array(k.data.length).fill(0.5) };
          const rule = { scale: 0.7, softcap: undefined, window: undefined };
          const rows = attention(situation, heads, scores(situation, heads, q, k), v, rule);
          const width = heads.heads * headSize;
          for (const [i, value] of rows.entries()) {
            const b = Math.floor(i / (seq * width));
            const seen = past + (Math.floor(i / width) % seq) >= (padding[b] as number);
            expect(value).toBeCloseTo(seen ? 0.5 : 0, 12);
          }
        },
      ),
    );
  });

  it('does not look at what is hidden', () => {
    fc.assert(
      fc.property(situations, fc.integer({ min: 1, max: 5 }), fc.integer(), (situation, window, seed) => {
        const { past, seq, padding } = situation;
        const heads = { heads: 1, kvHeads: 1, headSize: 2 };
        const total = past + seq;
        const q = randomNumbers([padding.length, 1, seq, 2], seed);
        const k = randomNumbers([padding.length, 1, total, 2], seed + 1);
        const v = randomNumbers([padding.length, 1, total, 2], seed + 2);
        const rule = { scale: 1, softcap: 2, window };
        const run = () => attention(situation, heads, scores(situation, heads, q, k), v, rule);
        const before = run();
        for (let b = 0; b < padding.length; b++) {
          for (let t = 0; t < total; t++) {
            const hidden = Array.from({ length: seq }, (_, s) => isVisible(situation, b, s, t, window)).every(
              (seen) => !seen,
            );
            if (hidden) v.data.fill(99, (b * total + t) * 2, (b * total + t + 1) * 2);
          }
        }
        expect(run()).toEqual(before);
      }),
    );
  });

  it('counts a window from the query, itself among them', () => {
    const situation: Situation = { past: 3, seq: 2, padding: [1] };
    const seen = (s: number, window: number | undefined) =>
      [0, 1, 2, 3, 4].filter((t) => isVisible(situation, 0, s, t, window));
    expect(seen(1, undefined)).toEqual([1, 2, 3, 4]);
    expect(seen(1, 2)).toEqual([3, 4]);
    expect(seen(0, 3)).toEqual([1, 2, 3]);
    expect(seen(0, 1)).toEqual([3]);
  });

  it('counts positions as Transformers does', () => {
    const situation: Situation = { past: 1, seq: 3, padding: [0, 2] };
    expect(maskOf(situation)).toEqual([
      [1, 1, 1, 1],
      [0, 0, 1, 1],
    ]);
    expect(positionsOf(situation)).toEqual([
      [1, 2, 3],
      [1, 0, 1],
    ]);
  });
});

describe('heads', () => {
  it('are rows in another order', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 3 }),
        fc.integer({ min: 1, max: 4 }),
        fc.integer({ min: 1, max: 3 }),
        fc.integer({ min: 1, max: 4 }),
        (batch, seq, heads, size) => {
          const rows = Float64Array.from({ length: batch * seq * heads * size }, (_, i) => i);
          const found = toHeads(rows, batch, seq, heads, size);
          for (let b = 0; b < batch; b++)
            for (let h = 0; h < heads; h++)
              for (let s = 0; s < seq; s++)
                for (let d = 0; d < size; d++)
                  expect(found[((b * heads + h) * seq + s) * size + d]).toBe(
                    rows[((b * seq + s) * heads + h) * size + d],
                  );
        },
      ),
    );
  });
});

describe('rotation', () => {
  const table =
    (positions: number[], half: number, f: (angle: number) => number) => (_: number, s: number, i: number) =>
      f((positions[s] as number) * 100 ** (-i / half));

  it.each([false, true])(
    'keeps lengths, and products that depend on distances alone (interleaved: %s)',
    (interleaved) => {
      fc.assert(
        fc.property(
          fc.integer(),
          fc.integer({ min: 0, max: 50 }),
          fc.integer({ min: 0, max: 50 }),
          fc.integer({ min: 0, max: 50 }),
          (seed, p, q, shift) => {
            const size = 8;
            const half = 3;
            const x = randomNumbers([1, 1, 2, size], seed);
            const at = (positions: number[]) =>
              rotated(
                x,
                table(positions, half, Math.cos),
                table(positions, half, Math.sin),
                half,
                interleaved,
              );
            const dot = (rows: ArrayLike<number>, a: number, b: number) => {
              let sum = 0;
              for (let d = 0; d < size; d++)
                sum += (rows[a * size + d] as number) * (rows[b * size + d] as number);
              return sum;
            };
            const [here, there] = [at([p, q]), at([p + shift, q + shift])];
            expect(dot(here, 0, 0)).toBeCloseTo(dot(x.data, 0, 0), 9);
            expect(dot(here, 0, 1)).toBeCloseTo(dot(there, 0, 1), 9);
            // What is not rotated stays.
            expect(here.subarray(2 * half, size)).toEqual(Float64Array.from(x.data.subarray(2 * half, size)));
          },
        ),
      );
    },
  );
});

describe('measured factors', () => {
  it('are what people write, where that is near', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 512 }),
        fc.double({ min: -1e-6, max: 1e-6, noNaN: true }),
        (n, error) => {
          expect(roundFactor((1 / Math.sqrt(n)) * (1 + error))).toBe(1 / Math.sqrt(n));
        },
      ),
    );
    expect(roundFactor(0.015625 * (1 + 1e-7))).toBe(0.015625);
    expect(roundFactor(0.12345678)).toBe(0.12345678);
  });
});

describe('agree', () => {
  it('takes no number for a small difference', () => {
    expect(agree([Number.NaN], [0], 1)).toBe(false);
    expect(agree([0, 1], [0], 1)).toBe(false);
    expect(agree([1, 5], [1, 0], 1e-3, (i) => i === 0)).toBe(true);
    expect(agree([1, 5], [1, 0], 1e-3)).toBe(false);
  });
});

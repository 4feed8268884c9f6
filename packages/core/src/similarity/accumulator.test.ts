import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Similarity, SimilarityAccumulator } from './accumulator.js';

/** `[points][tokens * hidden]` of a fixed pseudo-random stream, neighbouring points alike. */
function activations(points: number, tokens: number, hidden: number, seed: number, mean = 0): Float32Array[] {
  let state = seed >>> 0 || 1;
  const next = () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32 - 0.5;
  };
  let current = Float32Array.from({ length: tokens * hidden }, () => next() + mean);
  return Array.from({ length: points }, () => {
    const here = current;
    current = here.map((value) => value + 0.5 * next());
    return here;
  });
}

const slice = (x: readonly Float32Array[], hidden: number, from: number, to: number) =>
  x.map((values) => values.subarray(from * hidden, to * hidden));

function similarityOf(x: readonly Float32Array[], hidden: number, ckaBatch = 64): Similarity {
  return new SimilarityAccumulator({ points: x.length, hidden, ckaBatch }).add(x).finish();
}

const rows = (x: Float32Array, hidden: number) =>
  Array.from({ length: x.length / hidden }, (_, t) => Array.from(x.subarray(t * hidden, (t + 1) * hidden)));
const product = (a: number[], b: number[]) => a.reduce((sum, v, i) => sum + v * b[i]!, 0);
const norm = (a: number[]) => Math.sqrt(product(a, a));
const mean = (values: number[]) => values.reduce((a, b) => a + b, 0) / values.length;

/** Unbiased linear CKA of all samples at once, from centred features of the leave-two-out kind: O(n⁴), literal. */
function directCka(x: number[][], y: number[][]): number {
  const n = x.length;
  const hsic = (a: number[][], b: number[][]) => {
    // HSIC_1 is a U-statistic: the mean over all ordered quadruples of distinct samples of K_ij (L_ij + L_qr - 2 L_iq).
    let sum = 0;
    let count = 0;
    for (let i = 0; i < n; i++)
      for (let j = 0; j < n; j++)
        for (let q = 0; q < n; q++)
          for (let r = 0; r < n; r++) {
            if (new Set([i, j, q, r]).size < 4) continue;
            const k = product(a[i]!, a[j]!);
            sum += k * (product(b[i]!, b[j]!) + product(b[q]!, b[r]!) - 2 * product(b[i]!, b[q]!));
            count++;
          }
    return sum / count;
  };
  return hsic(x, y) / Math.sqrt(hsic(x, x) * hsic(y, y));
}

const sizes = fc.record({
  points: fc.integer({ min: 2, max: 5 }),
  tokens: fc.integer({ min: 4, max: 40 }),
  hidden: fc.integer({ min: 2, max: 9 }),
  seed: fc.integer({ min: 1, max: 2 ** 31 }),
});

describe('values', () => {
  it('equal a direct computation, token by token', () => {
    fc.assert(
      fc.property(sizes, ({ points, tokens, hidden, seed }) => {
        const x = activations(points, tokens, hidden, seed);
        const got = similarityOf(x, hidden);
        const tokensOf = x.map((values) => rows(values, hidden));
        for (let i = 0; i < points; i++) {
          for (let j = 0; j < points; j++) {
            const pairs = tokensOf[i]!.map((a, t) => [a, tokensOf[j]![t]!] as const);
            const cosines = pairs.map(([a, b]) => product(a, b) / norm(a) / norm(b));
            const relative = pairs.map(([a, b]) => norm(a.map((v, c) => v - b[c]!)) / norm(a));
            expect(got.cosine[i]![j]).toBeCloseTo(mean(cosines), 10);
            expect(got.angular[i]![j]).toBeCloseTo(
              mean(cosines.map((c) => Math.acos(Math.min(1, Math.max(-1, c))) / Math.PI)),
              7,
            );
            expect(got.relativeL2[i]![j]).toBeCloseTo(mean(relative), 10);
          }
        }
        expect(got.blockInfluence).toEqual(
          Array.from({ length: points - 1 }, (_, i) => 1 - got.cosine[i]![i + 1]!),
        );
        expect(got.tokens).toBe(tokens);
      }),
      { numRuns: 50 },
    );
  });

  it('of CKA equal the unbiased estimate over all samples, computed from its definition', () => {
    for (const seed of [1, 2, 3]) {
      const x = activations(3, 9, 4, seed, 2);
      const got = similarityOf(x, 4);
      for (let i = 0; i < 3; i++) {
        for (let j = 0; j < 3; j++) {
          const expected = Math.max(-1, Math.min(1, directCka(rows(x[i]!, 4), rows(x[j]!, 4))));
          expect(got.cka![i]![j]).toBeCloseTo(expected, 9);
        }
      }
    }
  });

  it('keep their digits where inputs are nearly equal', () => {
    const a = activations(1, 8, 6, 5)[0]!;
    const b = a.map((value, i) => (i % 6 === 0 ? Math.fround(value * (1 + 2 ** -22)) : value));
    const got = similarityOf([a, b], 6);
    const direct = mean(
      rows(a, 6).map((row, t) => norm(row.map((v, c) => v - rows(b, 6)[t]![c]!)) / norm(row)),
    );
    expect(direct).toBeGreaterThan(0);
    expect(Math.abs(got.relativeL2[0]![1]! / direct - 1)).toBeLessThan(1e-12);
  });

  it('are exact for equal inputs', () => {
    const a = activations(1, 10, 7, 9)[0]!;
    const got = similarityOf([a, a.slice()], 7);
    expect(got.cosine[0]![1]).toBe(1);
    expect(got.angular[0]![1]).toBe(0);
    expect(got.relativeL2[0]![1]).toBe(0);
    expect(got.cka![0]![1]).toBeCloseTo(1, 14);
    expect(got.blockInfluence).toEqual([0]);
  });
});

describe('algebra', () => {
  it('is symmetric, in range, and has a diagonal of perfect similarity', () => {
    fc.assert(
      fc.property(sizes, fc.integer({ min: 4, max: 20 }), ({ points, tokens, hidden, seed }, ckaBatch) => {
        const got = similarityOf(activations(points, tokens, hidden, seed, seed % 3), hidden, ckaBatch);
        for (let i = 0; i < points; i++) {
          expect(got.cosine[i]![i]).toBe(1);
          expect(got.angular[i]![i]).toBe(0);
          expect(got.relativeL2[i]![i]).toBe(0);
          expect(got.cka![i]![i]).toBe(1);
          for (let j = 0; j < points; j++) {
            for (const matrix of [got.cosine, got.angular, got.cka!])
              expect(matrix[i]![j]).toBe(matrix[j]![i]);
            expect(Math.abs(got.cosine[i]![j]!)).toBeLessThanOrEqual(1);
            expect(Math.abs(got.cka![i]![j]!)).toBeLessThanOrEqual(1);
            expect(got.angular[i]![j]).toBeGreaterThanOrEqual(0);
            expect(got.angular[i]![j]).toBeLessThanOrEqual(1);
            expect(got.relativeL2[i]![j]).toBeGreaterThanOrEqual(0);
          }
        }
      }),
      { numRuns: 50 },
    );
  });

  it('of CKA does not see scale, permutation, sign, rotation or shift of a point', () => {
    fc.assert(
      fc.property(sizes, fc.integer({ min: -8, max: 8 }), ({ points, tokens, hidden, seed }, exponent) => {
        const x = activations(points, tokens + 12, hidden, seed);
        const before = similarityOf(x, hidden, 16).cka!;
        const direction = activations(1, 1, hidden, seed + 1)[0]!;
        const unit = Array.from(direction, (v) => v / norm([...direction]));
        const changed: ((row: number[]) => number[])[] = [
          (row) => row.map((v) => v * 2 ** exponent),
          (row) => row.toReversed().map((v, c) => (c % 2 === 0 ? -v : v)),
          (row) => row.map((v, c) => v - 2 * product(row, unit) * unit[c]!),
          (row) => row.map((v, c) => v + c + 1),
        ];
        for (const change of changed) {
          const first = Float32Array.from(rows(x[0]!, hidden).flatMap(change));
          const after = similarityOf([first, ...x.slice(1)], hidden, 16).cka!;
          // Rotation and shift round to float32, which a small variance magnifies.
          for (let j = 1; j < points; j++)
            expect(Math.abs(after[0]![j]! - before[0]![j]!)).toBeLessThan(1e-3);
        }
      }),
      { numRuns: 50 },
    );
  });

  it('of cosine and angular distance does not see scale', () => {
    const x = activations(2, 12, 5, 4);
    const scaled = [x[0]!.map((v) => v * 4), x[1]!];
    expect(similarityOf(scaled, 5).cosine).toEqual(similarityOf(x, 5).cosine);
  });
});

describe('streaming', () => {
  it('gives the same bits however the tokens are cut into batches', () => {
    fc.assert(
      fc.property(
        sizes,
        fc.array(fc.nat({ max: 40 }), { maxLength: 6 }),
        fc.integer({ min: 4, max: 12 }),
        ({ points, tokens, hidden, seed }, cuts, ckaBatch) => {
          const x = activations(points, tokens, hidden, seed);
          const whole = similarityOf(x, hidden, ckaBatch);
          const parts = new SimilarityAccumulator({ points, hidden, ckaBatch });
          const edges = [0, ...cuts.map((cut) => Math.min(cut, tokens)).sort((a, b) => a - b), tokens];
          for (let i = 1; i < edges.length; i++) parts.add(slice(x, hidden, edges[i - 1]!, edges[i]!));
          expect(parts.finish()).toEqual(whole);
        },
      ),
      { numRuns: 50 },
    );
  });

  it('can be looked at in between', () => {
    const x = activations(3, 30, 4, 8);
    const accumulator = new SimilarityAccumulator({ points: 3, hidden: 4, ckaBatch: 8 });
    accumulator.add(slice(x, 4, 0, 13));
    expect(accumulator.finish()).toEqual(similarityOf(slice(x, 4, 0, 13), 4, 8));
    expect(accumulator.add(slice(x, 4, 13, 30)).finish()).toEqual(similarityOf(x, 4, 8));
  });

  it('averages CKA over minibatches with the weight of their tokens', () => {
    const x = activations(2, 14, 3, 21);
    const got = similarityOf(x, 3, 8);
    expect(got.ckaTokens).toBe(14);
    const hsic = (part: Float32Array[]) => {
      const a = part.map((values) => rows(values, 3));
      const n = a[0]!.length;
      const centre = (k: number[][]) => {
        const sums = k.map((row, i) => row.reduce((s, v, j) => (i === j ? s : s + v), 0));
        const total = sums.reduce((s, v) => s + v, 0);
        return k.map((row, i) =>
          row.map((v, j) =>
            i === j ? 0 : v - (sums[i]! + sums[j]!) / (n - 2) + total / ((n - 1) * (n - 2)),
          ),
        );
      };
      const centred = a.map((samples) => centre(samples.map((p) => samples.map((q) => product(p, q)))));
      return [
        [0, 0],
        [0, 1],
        [1, 1],
      ].map(
        ([i, j]) =>
          (n *
            centred[i!]!.flatMap((row, r) => row.map((v, c) => v * centred[j!]![r]![c]!)).reduce(
              (s, v) => s + v,
              0,
            )) /
          (n * (n - 3)),
      );
    };
    const [first, second] = [hsic(slice(x, 3, 0, 8)), hsic(slice(x, 3, 8, 14))];
    const [own, cross, other] = first.map((value, i) => value + second[i]!);
    expect(got.cka![0]![1]).toBeCloseTo(cross! / Math.sqrt(own! * other!), 10);
  });

  it('counts a rest of fewer than four tokens for everything but CKA', () => {
    const got = similarityOf(activations(2, 11, 3, 2), 3, 8);
    expect(got.tokens).toBe(11);
    expect(got.ckaTokens).toBe(8);
    expect(similarityOf(activations(2, 3, 3, 2), 3).cka).toBeNull();
  });

  it('merges parts', () => {
    const x = activations(3, 40, 4, 3);
    const make = (from: number, to: number) =>
      new SimilarityAccumulator({ points: 3, hidden: 4, ckaBatch: 8 }).add(slice(x, 4, from, to));
    const merged = make(0, 16).merge(make(16, 37)).merge(make(37, 40)).finish();
    const whole = similarityOf(x, 4, 8);
    expect(merged.tokens).toBe(40);
    expect(merged.ckaTokens).toBe(40);
    for (const key of ['cosine', 'angular', 'relativeL2', 'cka'] as const) {
      for (let i = 0; i < 3; i++)
        for (let j = 0; j < 3; j++) expect(merged[key]![i]![j]).toBeCloseTo(whole[key]![i]![j]!, 12);
    }
  });

  it('continues from a state that went through JSON', () => {
    const x = activations(3, 30, 4, 6);
    const first = new SimilarityAccumulator({ points: 3, hidden: 4, ckaBatch: 8 }).add(slice(x, 4, 0, 13));
    const again = SimilarityAccumulator.fromState(JSON.parse(JSON.stringify(first.toState())));
    expect(again.add(slice(x, 4, 13, 30)).finish()).toEqual(similarityOf(x, 4, 8));
  });
});

describe('masks and zeros', () => {
  it('leave masked tokens out, even if they are not finite', () => {
    const x = activations(2, 10, 3, 7);
    const mask = [0, 1, 1, 0, 1, 1, 1, 1, 1, 1];
    const kept = x.map((values) =>
      Float32Array.from(
        rows(values, 3)
          .filter((_, t) => mask[t])
          .flat(),
      ),
    );
    x[1]!.fill(Number.NaN, 9, 12);
    const got = new SimilarityAccumulator({ points: 2, hidden: 3 }).add(x, { mask }).finish();
    expect(got).toEqual(similarityOf(kept, 3));
  });

  it('give zero vectors the documented values', () => {
    const zero = new Float32Array(2);
    const one = Float32Array.of(3, 4);
    const got = new SimilarityAccumulator({ points: 3, hidden: 2 }).add([zero, one, zero]).finish();
    expect(got.cosine).toEqual([
      [1, 0, 1],
      [0, 1, 0],
      [1, 0, 1],
    ]);
    expect(got.angular[0]).toEqual([0, 0.5, 0]);
    expect(got.relativeL2[1]).toEqual([1, 0, 1]);
    expect(got.relativeL2[0]).toEqual([0, 0, 0]);
    expect(got.zeroTokens).toEqual([1, 0, 1]);
    expect(got.cka).toBeNull();
  });

  it('give a point that does not vary CKA 0 with every other', () => {
    const x = activations(2, 20, 5, 1);
    const constant = Float32Array.from({ length: 100 }, (_, i) => Math.fround(0.1 * ((i % 5) + 1)));
    const got = similarityOf([constant, ...x], 5);
    expect(got.cka![0]).toEqual([1, 0, 0]);
    expect(got.cka![1]![2]).not.toBe(0);
  });

  it('survive the largest and smallest floats', () => {
    const big = activations(2, 8, 3, 1).map((values) => values.map((v) => v * 3e38));
    const small = activations(2, 8, 3, 1).map((values) => values.map((v) => v * 1e-37));
    const [high, low] = [similarityOf(big, 3), similarityOf(small, 3)];
    expect(high.cka![0]![1]).toBeCloseTo(low.cka![0]![1]!, 4);
    expect(high.relativeL2[0]![1]).toBeCloseTo(low.relativeL2[0]![1]!, 4);
  });
});

describe('errors', () => {
  const accumulator = () => new SimilarityAccumulator({ points: 2, hidden: 3, ckaBatch: 4 });
  const code = (value: string) => expect.objectContaining({ name: 'MetricError', code: value });

  it('name point and token of what is not finite, and change nothing', () => {
    const x = activations(2, 6, 3, 2);
    for (const bad of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
      const broken = [x[0]!, x[1]!.slice()];
      broken[1]![4 * 3 + 2] = bad;
      const a = accumulator().add(x);
      expect(() => a.add(broken)).toThrowError(/point 1 .* token 4, channel 2/);
      expect(() => a.add(broken)).toThrowError(code('ACTIVATION_NOT_FINITE'));
      expect(a.finish()).toEqual(accumulator().add(x).finish());
    }
  });

  it('name wrong shapes', () => {
    const x = activations(2, 6, 3, 2);
    expect(() => accumulator().add([x[0]!])).toThrowError(code('ACTIVATION_SHAPE'));
    expect(() => accumulator().add([x[0]!, x[1]!.subarray(3)])).toThrowError(code('ACTIVATION_SHAPE'));
    expect(() => accumulator().add(x.map((v) => v.subarray(1)))).toThrowError(code('ACTIVATION_SHAPE'));
    expect(() => accumulator().add(x, { mask: [1] })).toThrowError(code('ACTIVATION_SHAPE'));
    const doubles = x.map((v) => Float64Array.from(v)) as unknown as Float32Array[];
    expect(() => accumulator().add(doubles)).toThrowError(code('ACTIVATION_SHAPE'));
  });

  it('name wrong options and states', () => {
    for (const options of [
      { points: 0, hidden: 1 },
      { points: 1.5, hidden: 1 },
      { points: 2, hidden: Number.NaN },
      { points: 2, hidden: 1, ckaBatch: 3 },
      { points: 1e6, hidden: 1e6 },
      { points: 2 ** 53, hidden: 1 },
    ]) {
      expect(() => new SimilarityAccumulator(options)).toThrowError(code('METRIC_OPTIONS'));
    }
    const other = new SimilarityAccumulator({ points: 2, hidden: 4, ckaBatch: 4 });
    expect(() => accumulator().merge(other)).toThrowError(code('METRIC_OPTIONS'));
    expect(() => accumulator().finish()).toThrowError(code('NO_TOKENS'));
    const state = accumulator()
      .add(activations(2, 6, 3, 2))
      .toState();
    for (const broken of [
      null,
      {},
      { ...state, version: 2 },
      { ...state, hsic: [1] },
      { ...state, pending: [[1], [2]] },
      { ...state, pending: [] },
      { ...state, points: 3 },
      { ...state, cosine: [Number.NaN, 0, 0, 0] },
    ]) {
      expect(() => SimilarityAccumulator.fromState(broken)).toThrowError(code('METRIC_STATE'));
    }
  });
});

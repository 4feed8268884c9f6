import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { seededRandom } from './random.js';
import { argmax, checkSampling, sample } from './sampling.js';

const logits = Float32Array.of(1, 3, 2, -1);

function frequencies(options: Parameters<typeof sample>[1], draws = 20000): number[] {
  const random = seededRandom(7);
  const counts = [0, 0, 0, 0];
  for (let i = 0; i < draws; i++) counts[sample(logits, options, random)]! += 1;
  return counts.map((count) => count / draws);
}

describe('sample', () => {
  it('takes the best without temperature, the first of equals', () => {
    expect(sample(logits, {}, () => 0.99)).toBe(1);
    expect(argmax(Float32Array.of(2, 5, 5))).toBe(1);
    expect(argmax(Float32Array.of(Number.NaN, 1))).toBe(1);
  });

  it('draws in proportion to the softmax', () => {
    const weights = [...logits].map((l) => Math.exp(l / 0.8));
    const total = weights.reduce((a, b) => a + b);
    frequencies({ temperature: 0.8 }).forEach((got, i) => {
      expect(Math.abs(got - weights[i]! / total)).toBeLessThan(0.012);
    });
  });

  it('keeps to the nucleus', () => {
    // Probabilities are 0.64, 0.24, 0.09, 0.01 for ids 1, 2, 0, 3: two of them reach 0.8.
    const [zero, , two, three] = frequencies({ temperature: 1, topP: 0.8 });
    expect([zero, three]).toEqual([0, 0]);
    expect(two).toBeGreaterThan(0.2);
    expect(frequencies({ temperature: 1, topK: 1 })).toEqual([0, 1, 0, 0]);
  });

  it('always answers with a token that has weight', () => {
    fc.assert(
      fc.property(
        fc.array(fc.float({ min: -50, max: 50, noNaN: true }), { minLength: 1, maxLength: 30 }),
        fc.double({ min: 0, max: 0.999999, noNaN: true }),
        fc.double({ min: 0.01, max: 1, noNaN: true }),
        (values, draw, topP) => {
          const id = sample(Float32Array.from(values), { temperature: 1, topP }, () => draw);
          return id >= 0 && id < values.length;
        },
      ),
    );
  });

  it('refuses options that make no sense', () => {
    for (const bad of [
      { temperature: -1 },
      { topP: 0 },
      { topP: 1.5 },
      { topK: 0.5 },
      { temperature: Number.NaN },
    ]) {
      expect(() => checkSampling(bad)).toThrow(expect.objectContaining({ code: 'SAMPLING_INVALID' }));
    }
  });
});

describe('seededRandom', () => {
  it('repeats itself for one seed and differs for another', () => {
    const take = (seed: number) => Array.from({ length: 5 }, seededRandom(seed));
    expect(take(1)).toEqual(take(1));
    expect(take(1)).not.toEqual(take(2));
  });

  it('is spread evenly', () => {
    const random = seededRandom(3);
    const buckets = new Array<number>(10).fill(0);
    for (let i = 0; i < 100000; i++) buckets[Math.floor(random() * 10)]! += 1;
    for (const count of buckets) expect(Math.abs(count - 10000)).toBeLessThan(400);
  });
});

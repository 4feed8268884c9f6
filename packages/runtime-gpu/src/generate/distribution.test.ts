import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { draw, excess, keepDistribution, probability, tokenDistribution } from './distribution.js';
import { seededRandom } from './random.js';
import type { SamplingOptions } from './sampling.js';

/**
 * The same by sorting everything, with no regard for time.
 *
 * @param slack added to top-p: where a sum is all but what it asks for, rounding decides
 */
function reference(logits: Float32Array, options: SamplingOptions, slack = 0): Map<number, number> {
  const { temperature = 1, topK = logits.length, topP = 1, minP = 0 } = options;
  const top = Math.max(...logits.filter((logit) => !Number.isNaN(logit)));
  let kept = [...logits.keys()]
    .map((id) => ({ id, weight: Math.exp((logits[id]! - top) / temperature), logit: logits[id]! }))
    .filter(({ weight }) => weight > Math.exp(-40))
    .sort((a, b) => b.logit - a.logit || a.id - b.id)
    .slice(0, topK);
  const sum = (tokens: typeof kept) => tokens.reduce((total, { weight }) => total + weight, 0);
  const wanted = (topP + slack) * sum(kept);
  let mass = 0;
  kept = kept.filter(({ weight }) => {
    const before = mass;
    mass += weight;
    return topP === 1 || before < wanted;
  });
  kept = kept.filter(({ weight }) => weight >= minP);
  const total = sum(kept);
  return new Map(kept.map(({ id, weight }) => [id, weight / total]));
}

function asMap(logits: Float32Array, options: SamplingOptions): Map<number, number> {
  const { ids, weights, count, total } = tokenDistribution(logits, options);
  return new Map(Array.from({ length: count }, (_, i) => [ids[i]!, weights[i]! / total]));
}

const row = fc.oneof(
  fc.array(fc.double({ min: -30, max: 30, noNaN: true }), { minLength: 1, maxLength: 60 }),
  // Many equal ones, as of 8-bit models.
  fc.array(fc.integer({ min: -3, max: 3 }), { minLength: 1, maxLength: 60 }),
);
const options = fc.record({
  temperature: fc.double({ min: 0.1, max: 3, noNaN: true }),
  topK: fc.integer({ min: 1, max: 70 }),
  topP: fc.double({ min: 0.01, max: 1, noNaN: true }),
  minP: fc.double({ min: 0, max: 1, noNaN: true }),
});

describe('tokenDistribution', () => {
  it('is what sorting everything gives', () => {
    fc.assert(
      fc.property(row, fc.subarray(['topK', 'topP', 'minP'] as const), options, (values, which, all) => {
        const logits = Float32Array.from(values);
        const { temperature } = all;
        const some = { temperature, ...Object.fromEntries(which.map((name) => [name, all[name]])) };
        const got = asMap(logits, some);
        const [least, most] = [reference(logits, some, -1e-9), reference(logits, some, 1e-9)];
        for (const id of least.keys()) expect(got.has(id)).toBe(true);
        for (const [id, p] of got) expect(Math.abs(p - (most.get(id) ?? 2))).toBeLessThan(1e-8);
      }),
      { numRuns: 500 },
    );
  });

  it('top-p holds the mass, and would not without its least likely token', () => {
    fc.assert(
      fc.property(row, options, (values, { temperature, topP }) => {
        const logits = Float32Array.from(values);
        const whole = asMap(logits, { temperature });
        const masses = [...asMap(logits, { temperature, topP }).keys()].map((id) => whole.get(id)!);
        const mass = masses.reduce((a, b) => a + b);
        expect(mass).toBeGreaterThanOrEqual(topP - 1e-9);
        if (topP < 1) expect(mass - Math.min(...masses)).toBeLessThan(topP + 1e-9);
      }),
    );
  });

  it('top-k keeps so many, the likeliest, and of equals the first', () => {
    fc.assert(
      fc.property(row, fc.integer({ min: 1, max: 70 }), (values, topK) => {
        const logits = Float32Array.from(values);
        const spread = Math.max(...logits) - Math.min(...logits);
        const kept = [...asMap(logits, { temperature: Math.max(1, spread / 30), topK }).keys()];
        const order = [...logits.keys()].sort((a, b) => logits[b]! - logits[a]! || a - b);
        expect(kept).toEqual(order.slice(0, topK).sort((a, b) => a - b));
      }),
    );
  });

  it('min-p keeps what is so likely beside the likeliest', () => {
    fc.assert(
      fc.property(row, options, (values, { temperature, minP }) => {
        const logits = Float32Array.from(values);
        const whole = asMap(logits, { temperature });
        const floor = minP * Math.max(...whole.values());
        const kept = asMap(logits, { temperature, minP });
        for (const [id, p] of whole) {
          if (Math.abs(p - floor) > 1e-12) expect(kept.has(id)).toBe(p > floor);
        }
      }),
    );
  });

  it('leaves out what is no number or banned, and says when nothing is left', () => {
    const logits = Float32Array.of(Number.NaN, 1, Number.NEGATIVE_INFINITY, 1);
    expect(asMap(logits, { topP: 0.9, topK: 3 })).toEqual(
      new Map([
        [1, 0.5],
        [3, 0.5],
      ]),
    );
    expect([...asMap(Float32Array.of(0, Number.POSITIVE_INFINITY), {}).keys()]).toEqual([1]);
    expect(() => tokenDistribution(Float32Array.of(Number.NaN, Number.NEGATIVE_INFINITY), {})).toThrow(
      expect.objectContaining({ code: 'NO_TOKEN_LEFT' }),
    );
  });

  it('knows the probability of each token', () => {
    const distribution = tokenDistribution(Float32Array.of(0, 5, 1, 0.5), { topK: 2 });
    expect(probability(distribution, 1) + probability(distribution, 2)).toBeCloseTo(1, 12);
    expect([0, 3, 9].map((id) => probability(distribution, id))).toEqual([0, 0, 0]);
  });
});

describe('draw', () => {
  it('takes one number and never gives a token without weight', () => {
    fc.assert(
      fc.property(
        row,
        options,
        fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
        (values, o, at) => {
          const logits = Float32Array.from(values);
          let calls = 0;
          const id = draw(tokenDistribution(logits, o), () => {
            calls++;
            return at;
          });
          expect(calls).toBe(1);
          expect(reference(logits, o, 1e-9).has(id)).toBe(true);
        },
      ),
    );
  });
});

describe('excess', () => {
  it('is what p has more than q', () => {
    const p = Float32Array.from([0.5, 0.3, 0.2], Math.log);
    const q = Float32Array.from([0.1, 0.6, 0.3], Math.log);
    const drafted = keepDistribution(tokenDistribution(q, {}));
    const left = excess(tokenDistribution(p, {}), drafted);
    expect([...left.ids.subarray(0, left.count)]).toEqual([0]);
    expect(left.weights[0]).toBeCloseTo(0.4, 6);
    const same = excess(tokenDistribution(q, {}), drafted);
    const random = seededRandom(1);
    expect(Array.from({ length: 200 }, () => draw(same, random))).toContain(1);
  });
});

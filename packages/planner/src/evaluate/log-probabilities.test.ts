import { seededRandom } from '@cqil/runtime-gpu';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { best, klDivergence, logSumExp } from './distribution.js';
import { fastExp, sparse, sparseDivergence, summariseRow } from './log-probabilities.js';

/** A row as models make them: a few good tokens, and a long tail of bad ones. */
function someRow(random: () => number, size: number): Float32Array {
  const normal = () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
  const width = 1 + 3 * random();
  return Float32Array.from({ length: size }, () => 5 + width * normal());
}

describe('fastExp', () => {
  it('is e to the power within 1e-8', () => {
    fc.assert(
      fc.property(fc.double({ min: -40, max: 0, noNaN: true }), (x) => {
        expect(Math.abs(fastExp(x) / Math.exp(x) - 1)).toBeLessThan(1e-8);
      }),
      { numRuns: 2000 },
    );
    expect(Math.abs(fastExp(-0.9999 / Math.LOG2E) / 2 ** -0.9999 - 1)).toBeLessThan(1e-8);
  });
});

describe('rows', () => {
  it('are summed up as by the definition, wherever they start', () => {
    fc.assert(
      fc.property(fc.nat(), fc.integer({ min: 1, max: 300 }), fc.nat({ max: 20 }), (seed, size, start) => {
        const logits = someRow(seededRandom(seed), start + size + 3);
        logits[start] = logits[start + size - 1]!;
        const got = summariseRow(logits, start, size);
        expect(Math.abs(got.logSumExp - logSumExp(logits, start, size))).toBeLessThan(1e-7);
        expect(got.best).toBe(best(logits, start, size).index);
      }),
    );
    expect(summariseRow(Float32Array.of(1000, -1000), 0, 2).logSumExp).toBeCloseTo(1000, 7);
  });

  it('leave out no more than they may, and only what is improbable', () => {
    fc.assert(
      fc.property(fc.nat(), fc.double({ min: 1e-9, max: 0.5, noNaN: true }), (seed, rest) => {
        const size = 1500;
        const logits = someRow(seededRandom(seed), size);
        const norm = logSumExp(logits, 0, size);
        const { ids, logs } = sparse(logits, 0, size, norm, rest);
        expect(ids.length).toBeGreaterThan(0);
        const kept = new Set(ids);
        const out = [...logits].filter((_, id) => !kept.has(id));
        const mass = out.reduce((sum, logit) => sum + Math.exp(logit - norm), 0);
        expect(mass).toBeLessThanOrEqual(rest + 1e-9);
        const least = Math.min(...[...ids].map((id) => logits[id]!));
        expect(Math.max(Number.NEGATIVE_INFINITY, ...out)).toBeLessThanOrEqual(least);
        for (const [i, id] of ids.entries()) expect(logs[i]).toBeCloseTo(logits[id]! - norm, 5);
      }),
    );
  });

  it('give the divergence, too small by what was left out at most, and not too large', () => {
    fc.assert(
      fc.property(fc.nat(), fc.double({ min: 0.05, max: 1.5, noNaN: true }), (seed, noise) => {
        const random = seededRandom(seed);
        const size = 2000;
        const p = someRow(random, size);
        const q = p.map((logit) => logit + noise * (random() + random() - 1));
        const kept = sparse(p, 0, size, summariseRow(p, 0, size).logSumExp, 5e-4);
        const got = sparseDivergence(kept, q, 0, summariseRow(q, 0, size).logSumExp);
        const exact = klDivergence(p, q, 0, size);
        expect(got).toBeLessThan(exact + 1e-6);
        // Among the tokens left out ln p/q differs by 2 · noise at most, and so their divergence is no larger.
        expect(got).toBeGreaterThan(exact - 5e-4 * 2 * noise - 1e-6);
      }),
    );
  });
});

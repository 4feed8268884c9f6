import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  excessDomain,
  excessScale,
  excessTicks,
  linear,
  logarithmic,
  logTicks,
  spread,
  wholeTicks,
} from './scale.js';

describe('scales', () => {
  it('map the ends of the domain to the ends of the range', () => {
    expect(linear([0, 10], [100, 0])(10)).toBe(0);
    expect(linear([3, 3], [0, 10])(3)).toBe(5);
    expect(logarithmic([0.01, 1], [0, 100])(0.1)).toBeCloseTo(50);
    expect(logarithmic([0.01, 1], [0, 100])(0)).toBe(0);
    const domain = excessDomain([0.2, 6]);
    const scale = excessScale(domain, [0, 100]);
    expect(scale(0)).toBeCloseTo(0);
    expect(scale(6)).toBeLessThan(100);
  });

  it('of excess hold every value, better than the original too', () => {
    fc.assert(
      fc.property(fc.array(fc.double({ min: -0.9, max: 1e4, noNaN: true })), (values) => {
        const domain = excessDomain(values);
        const scale = excessScale(domain, [0, 100]);
        for (const value of [0, ...values]) {
          expect(scale(value)).toBeGreaterThanOrEqual(0);
          expect(scale(value)).toBeLessThanOrEqual(100);
        }
        const ticks = excessTicks(domain, scale, 20);
        expect(ticks).toContain(0);
        for (const [i, tick] of ticks.slice(1).entries()) {
          expect(scale(tick) - scale(ticks[i]!)).toBeGreaterThanOrEqual(20 - 1e-9);
        }
      }),
    );
  });

  it('have round ticks', () => {
    expect(logTicks([0.02, 5], logarithmic([0.02, 5], [0, 100]), 10)).toEqual([
      0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5,
    ]);
    expect(logTicks([0.02, 5], logarithmic([0.02, 5], [0, 100]), 25)).toEqual([0.02, 0.1, 1, 5]);
    expect(wholeTicks(0, 29, 7)).toEqual([0, 5, 10, 15, 20, 25]);
    expect(wholeTicks(16, 30, 20)).toEqual(Array.from({ length: 15 }, (_, i) => 16 + i));
  });
});

describe('labels moved apart', () => {
  it('keep their places where there is room, and share the way where there is none', () => {
    expect(spread([0, 50, 20], 10)).toEqual([0, 50, 20]);
    expect(spread([10, 10], 10)).toEqual([5, 15]);
    expect(spread([10, 12, 40], 10)).toEqual([6, 16, 40]);
  });

  it('never touch and never change their order', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 300 }), { maxLength: 20 }), (wanted) => {
        const places = spread(wanted, 12);
        expect(places).toHaveLength(wanted.length);
        for (const [i, a] of places.entries()) {
          for (const [j, b] of places.entries()) {
            if (i === j) continue;
            expect(Math.abs(a - b)).toBeGreaterThanOrEqual(12 - 1e-9);
            if (wanted[i]! < wanted[j]!) expect(a).toBeLessThan(b);
          }
        }
      }),
    );
  });
});

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import * as format from './format.js';

const NBSP = '\u00A0';

describe('numbers for people', () => {
  it.each([
    [format.count, 12345.4, '12,345'],
    [format.count, -3, '−3'],
    [format.share, 0.71349, '71.3 %'],
    [format.share, -0.00001, '0.0 %'],
    [format.excess, 0.2143, '+21.4 %'],
    [format.excess, -0.004, '−0.4 %'],
    [format.excess, -0.00001, '+0.0 %'],
    [format.excess, 6.05, '+605 %'],
    [format.excess, 12.5, '+1,250 %'],
    [format.excess, 120.5, '× 122'],
    [format.excess, 3e9, '× 3.0e9'],
    [format.perplexity, 48.7251, '48.73'],
    [format.perplexity, 12345.6, '12,346'],
    [format.perplexity, 2e8, '2.0e8'],
    [format.nats, 0.041249, '0.0412'],
    [format.nats, -0.5, '−0.500'],
    [format.nats, 2345.6, '2,346'],
    [format.round, 0.05, '0.05'],
    [format.round, -0.000001, '−0.000001'],
    [format.round, 1e-9, '1e−9'],
    [format.nats, 2.14e-7, '2.1e−7'],
    [format.nats, 0, '0'],
    [format.duration, 0.84, '0.8 s'],
    [format.duration, 59.6, '1 min'],
    [format.duration, 200, '3 min 20 s'],
    [format.duration, 7500, '2 h 5 min'],
    [format.duration, 3599.7, '1 h'],
  ])('%s of %d is %s', (write, value, text) => {
    expect(write(value).replaceAll(NBSP, ' ')).toBe(text);
  });

  it('writes a dash where there is no number', () => {
    for (const write of [
      format.count,
      format.share,
      format.excess,
      format.perplexity,
      format.nats,
      format.round,
    ]) {
      expect(write(Number.NaN)).toBe('–');
      expect(write(Number.POSITIVE_INFINITY)).toBe('–');
    }
  });

  it('keeps numbers and their units on one line', () => {
    for (const text of [format.share(0.5), format.excess(0.5), format.excess(500), format.duration(3)]) {
      expect(text).not.toContain(' ');
      expect(text).toContain(NBSP);
    }
  });

  it('never writes a hyphen for a minus, whatever the number', () => {
    fc.assert(
      fc.property(fc.double(), (value) => {
        for (const write of [
          format.count,
          format.share,
          format.excess,
          format.perplexity,
          format.nats,
          format.round,
        ]) {
          expect(write(value)).not.toContain('-');
        }
      }),
    );
  });
});

describe('words', () => {
  it('names layers, bypasses and plans', () => {
    expect(format.layerRange([14, 15, 16])).toBe('14–16');
    expect(format.layerRange([4])).toBe('4');
    expect(format.layerRange([4, 7])).toBe('4, 7');
    expect(format.bypassName('full')).toBe('full');
    expect(format.planText({ version: 1, layers: 4, groups: [{ layers: [1, 2], bypass: 1 }] })).toBe(
      `1–2 (d${NBSP}=${NBSP}1)`,
    );
    expect(format.planText({ version: 1, layers: 4, groups: [] })).toBe('no groups');
  });

  it('lists, counts and dates', () => {
    expect(format.list(['a'])).toBe('a');
    expect(format.list(['a', 'b', 'c'])).toBe('a, b and c');
    expect(format.plural(1, 'layer')).toBe('1 layer');
    expect(format.plural(2000, 'token')).toBe('2,000 tokens');
    expect(format.moment('2026-11-24T13:05:09Z')).toBe('24 November 2026, 13:05 UTC');
    expect(format.moment('yesterday')).toBe('yesterday');
    expect(format.interval({ low: 0.1, high: 0.2 }, format.excess)).toBe(`+10.0${NBSP}% to +20.0${NBSP}%`);
  });
});

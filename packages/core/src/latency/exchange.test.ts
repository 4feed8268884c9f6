import { describe, expect, it } from 'vitest';
import { datasheetProfile } from './datasheets.js';
import { exchangeLinks, exchangeSeconds } from './exchange.js';
import { roundMachine } from './testing/instances.js';

const ids = (n: number) => Array.from({ length: n }, (_, i) => String(i));
const machine = (baseSeconds: number, hopSeconds: number) => {
  const profile = roundMachine(8);
  return {
    ...profile,
    links: [{ ...profile.links[0]!, protocols: [{ baseSeconds, hopSeconds, share: 1 }] }],
  };
};

describe('a ring', () => {
  it.each([2, 3, 8])('of %i sums in 2 (n − 1) hops and 2 (n − 1)/n of the bytes', (n) => {
    const all = { kind: 'all-reduce', devices: ids(n), bytes: 1e9 } as const;
    expect(exchangeSeconds(all, machine(0, 0))).toBeCloseTo((2 * (n - 1)) / n);
    expect(exchangeSeconds({ ...all, bytes: 0 }, machine(5, 1))).toBeCloseTo(5 + 2 * (n - 1));
  });

  it('gathers in half of that, and hands on or sends the whole', () => {
    const time = (kind: 'all-gather' | 'broadcast' | 'send') =>
      exchangeSeconds({ kind, devices: ids(4), bytes: 1e9 }, machine(10, 1));
    expect([time('all-gather'), time('broadcast'), time('send')]).toEqual([13.75, 14, 12]);
  });
});

it('costs nothing alone', () => {
  expect(exchangeSeconds({ kind: 'all-reduce', devices: ['0'], bytes: 1e9 }, machine(5, 1))).toBe(0);
});

it('takes the protocol that is fastest at the size', () => {
  const profile = datasheetProfile('a100-nvlink', 2);
  const time = (bytes: number) =>
    exchangeSeconds({ kind: 'all-reduce', devices: ['0', '1'], bytes }, profile);
  // LL: 6.6 + 2 × 0.6 µs; Simple: 8.4 + 2 × 3.4 µs and 1e9 bytes at 240 GB/s.
  expect(time(0)).toBeCloseTo(7.8e-6, 12);
  expect(time(1e9)).toBeCloseTo(15.2e-6 + 1e9 / 240e9, 12);
});

describe('links', () => {
  const { links, ...rest } = roundMachine(3);
  const slow = { ...links[0]!, bytesPerSecond: 1e6, between: ['1', '2'] as [string, string] };
  const profile = { ...rest, links: [links[0]!, slow] };

  it('that are named go before those of all; the slowest of the ring decides', () => {
    const all = { kind: 'all-reduce', bytes: 1e6 } as const;
    expect(exchangeSeconds({ ...all, devices: ['0', '1'] }, profile)).toBeCloseTo(1e-3);
    expect(exchangeSeconds({ ...all, devices: ['0', '1', '2'] }, profile)).toBeCloseTo(4 / 3);
    expect(exchangeSeconds({ ...all, kind: 'broadcast', devices: ['1', '0', '2'] }, profile)).toBe(1e-3);
    expect(
      exchangeLinks({ kind: 'send', devices: ['0', '1', '2'], pairs: [['2', '1']], bytes: 1 }, profile),
    ).toEqual([slow]);
  });

  it('that are missing are named', () => {
    const none = { ...rest, links: [slow] };
    expect(() => exchangeSeconds({ kind: 'all-reduce', devices: ['0', '1'], bytes: 1 }, none)).toThrow(
      /no link between 0 and 1/,
    );
  });
});

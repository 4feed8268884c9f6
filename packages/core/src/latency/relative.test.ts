import { describe, expect, it } from 'vitest';
import type { Plan } from '../plan/types.js';
import { onOneDevice } from './placement.js';
import { predictPass } from './predict.js';
import { relativeLatency } from './relative.js';
import { roundMachine, TINY, unplanned } from './testing/instances.js';

const shape = { ...TINY, kernels: { ...TINY.kernels, join: 1 } };
const pair = (first: number, bypass: 0 | 1 | 'full' = 0) => ({ layers: [first, first + 1], bypass });
const planOf = (...groups: ReturnType<typeof pair>[]): Plan => ({ ...unplanned(6), groups });
const machine = (devices: number) => roundMachine(devices, { launchSeconds: 1e-4 });

describe('on one device', () => {
  it('is 1 without groups, more in branches, less as wide layers', () => {
    const branches = relativeLatency({ shape, profile: machine(1) });
    expect(branches.of(unplanned(6))).toBe(1);
    expect(branches.change(pair(1))).toBeGreaterThan(0);
    expect(branches.change(pair(1, 1))).toBeGreaterThan(branches.change(pair(1)));
    const wide = relativeLatency({ shape, profile: machine(1), form: 'wide' });
    expect(wide.change(pair(1, 'full'))).toBeLessThan(-0.05);
  });

  it('is the sum of what groups change, and what predictPass says', () => {
    const wide = relativeLatency({ shape, profile: machine(1), form: 'wide' });
    const plan = planOf(pair(0, 'full'), pair(2, 'full'));
    expect(wide.of(plan)).toBeCloseTo(1 + 2 * wide.change(pair(0, 'full')), 12);
    const pass = { tokens: 1, context: 128 };
    const seconds = (plan: Plan) =>
      predictPass({ plan, shape, profile: machine(1), placement: onOneDevice('0') }, pass).seconds;
    const formed = { ...plan, groups: plan.groups.map((group) => ({ ...group, form: 'wide' as const })) };
    expect(wide.of(plan)).toBe(seconds(formed) / seconds(unplanned(6)));
  });
});

describe('on several', () => {
  const branches = ['1', '2'];

  it('puts branches on the devices in turn, and all else on the first', () => {
    const latency = relativeLatency({ shape, profile: machine(3), branches });
    expect(latency.change(pair(2))).toBeLessThan(-0.05);
    // Three branches on two devices take as long as two of them.
    const three = latency.change({ layers: [1, 2, 3], bypass: 0 });
    const four = latency.change({ layers: [0, 1, 2, 3], bypass: 0 });
    expect(four).toBeLessThan(three);
  });

  it('is no slower than the sum of what groups change', () => {
    const latency = relativeLatency({ shape, profile: machine(3), branches });
    const together = latency.of(planOf(pair(0), pair(2), pair(4)));
    expect(together).toBeLessThanOrEqual(1 + 3 * latency.change(pair(0)) + 1e-12);
  });

  it('takes the first for a branch, too, where it is named', () => {
    const shared = relativeLatency({ shape, profile: machine(2), branches: ['0', '1'] });
    expect(shared.change(pair(2))).toBeLessThan(-0.05);
  });
});

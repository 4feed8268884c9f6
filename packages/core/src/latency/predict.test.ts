import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { branchParallel, onOneDevice, tensorParallel } from './placement.js';
import { type PassLatency, predictLatency, predictPass } from './predict.js';
import type { DeviceProfile, MachineProfile } from './profile.js';
import {
  machines,
  passes,
  placements,
  plansOf,
  roundMachine,
  shapes,
  TINY,
  unplanned,
} from './testing/instances.js';

const instances = shapes.chain((shape) =>
  fc.record({
    shape: fc.constant(shape),
    plan: plansOf(shape.layers),
    pass: passes,
    placement: placements,
    profile: machines(4),
  }),
);
/** Equal devices: there the assignment does not change with the profile. */
const alike = instances.chain((one) => machines(4, { alike: true }).map((profile) => ({ ...one, profile })));

const total = ({ parts }: PassLatency) => Object.values(parts).reduce((sum, one) => sum + one, 0);

describe('the parts', () => {
  it('add up to the whole, and none is negative', () => {
    fc.assert(
      fc.property(instances, ({ pass, ...options }) => {
        const latency = predictPass(options, pass);
        expect(total(latency)).toBeCloseTo(latency.seconds, 9);
        for (const part of Object.values(latency.parts)) expect(part).toBeGreaterThanOrEqual(0);
        for (const { busySeconds } of latency.devices) {
          expect(busySeconds).toBeLessThanOrEqual(latency.seconds * (1 + 1e-12));
        }
      }),
    );
  });

  it('are what a serial device takes, one after the other', () => {
    const plan = unplanned(6);
    const options = { plan, shape: TINY, placement: onOneDevice('0') };
    const kernels = 1 + 6 * 10 + 2;
    const profile = roundMachine(1, { launchSeconds: 2, kernelSeconds: 3, runSeconds: 5 });
    const { parts } = predictPass({ ...options, profile }, { tokens: 1, context: 0 });
    expect(parts.launch).toBeCloseTo(kernels * 5 + 5);
    expect([parts.exchange, parts.waiting]).toEqual([0, 0]);
    // Every product moves two bytes a weight at 1e9 bytes/s and does two operations with it at 1e9 FLOP/s.
    const weights = 6 * (64 * 16 * 12 + 3 * 64 * 128) + 64 * 100;
    expect(parts.memory + parts.compute).toBeGreaterThan((2 * weights) / 1e9);
    expect(parts.memory + parts.compute).toBeLessThan((2.2 * weights) / 1e9);
  });

  it('hide launches behind kernels where the host is ahead', () => {
    const time = (launchSeconds: number) => {
      const profile = roundMachine(1, { launch: 'ahead', launchSeconds, kernelSeconds: 1 });
      const options = { plan: unplanned(6), shape: TINY, placement: onOneDevice('0'), profile };
      return predictPass(options, { tokens: 1, context: 0 }).seconds;
    };
    expect(time(0.5) - time(0)).toBeCloseTo(0.5, 6);
    // 63 launches, then the last kernel.
    expect(time(100)).toBeCloseTo(63 * 100 + 1, 2);
  });

  it('name the wait for the slowest branch', () => {
    const profile = roundMachine(2);
    const slow: DeviceProfile = {
      ...profile.devices[1]!,
      memoryBytesPerSecond: 1e8,
      peakFlops: { float16: 1e8 },
    };
    const plan = { ...unplanned(6), groups: [{ layers: [2, 3], bypass: 0 }] };
    const placement = { ...branchParallel(['0', '1']), assignment: [[0, 1]] };
    const options = { plan, shape: TINY, placement };
    const pass = { tokens: 1, context: 0 };
    const even = predictPass({ ...options, profile }, pass);
    const uneven = predictPass(
      { ...options, profile: { ...profile, devices: [profile.devices[0]!, slow] } },
      pass,
    );
    expect(even.parts.waiting).toBeCloseTo(0, 12);
    // Nine tenths of the slow branch's time.
    expect(uneven.parts.waiting).toBeCloseTo(0.9 * uneven.devices[1]!.busySeconds, 9);
    expect(uneven.seconds - even.seconds).toBeCloseTo(uneven.parts.waiting, 9);
  });
});

it('is that of the unplanned model for a plan without groups, wherever branches would go', () => {
  fc.assert(
    fc.property(instances, ({ pass, placement, ...options }) => {
      const plan = unplanned(options.shape.layers);
      const first = { teams: [placement.teams[0]!] };
      const alone = predictPass({ ...options, plan, placement: first }, pass);
      const teams = predictPass({ ...options, plan, placement: { ...placement, ungrouped: 'first' } }, pass);
      expect(teams.seconds).toBe(alone.seconds);
      expect(teams.parts).toEqual(alone.parts);
    }),
  );
});

describe('never slower', () => {
  const better = (name: string, change: (profile: MachineProfile, factor: number) => MachineProfile) =>
    it(`with ${name}`, () => {
      fc.assert(
        fc.property(alike, fc.double({ min: 1, max: 100, noNaN: true }), ({ pass, ...options }, factor) => {
          const { seconds, assignment } = predictPass(options, pass);
          // Branches are shared out by what they compute: other teams may compute sooner and exchange longer.
          const placement = { ...options.placement, assignment };
          const profile = change(options.profile, factor);
          const after = predictPass({ ...options, placement, profile }, pass).seconds;
          expect(after).toBeLessThanOrEqual(seconds * (1 + 1e-12));
        }),
      );
    });
  const devices =
    (change: (device: DeviceProfile, factor: number) => Partial<DeviceProfile>) =>
    (profile: MachineProfile, factor: number): MachineProfile => ({
      ...profile,
      devices: profile.devices.map((device) => ({ ...device, ...change(device, factor) })),
    });

  better(
    'more memory bandwidth',
    devices((device, factor) => ({ memoryBytesPerSecond: device.memoryBytesPerSecond * factor })),
  );
  better(
    'a higher rate',
    devices(({ peakFlops }, factor) => ({ peakFlops: { float16: peakFlops.float16! * factor } })),
  );
  better(
    'cheaper launches',
    devices((device, factor) => ({
      launchSeconds: device.launchSeconds / factor,
      kernelSeconds: device.kernelSeconds / factor,
      runSeconds: device.runSeconds / factor,
    })),
  );
  better('faster links', (profile, factor) => ({
    ...profile,
    links: profile.links.map((link) => ({
      ...link,
      bytesPerSecond: link.bytesPerSecond * factor,
      protocols: link.protocols.map((one) => ({
        ...one,
        baseSeconds: one.baseSeconds / factor,
        hopSeconds: one.hopSeconds / factor,
      })),
    })),
  }));

  it('with one token less, or a shorter context', () => {
    fc.assert(
      fc.property(alike, ({ pass, ...options }) => {
        const before = predictPass(options, pass).seconds;
        for (const less of [
          { ...pass, tokens: Math.max(1, pass.tokens - 1) },
          { ...pass, context: Math.max(0, pass.context - 1) },
        ]) {
          // A smaller kernel may get a smaller share of the bandwidth, so only where that does not change.
          if (options.profile.devices[0]!.memoryEfficiency.length > 1) continue;
          expect(predictPass(options, less).seconds).toBeLessThanOrEqual(before * (1 + 1e-12));
        }
      }),
    );
  });
});

describe('branches on devices of their own', () => {
  const free = roundMachine(2);
  const groups = [
    { layers: [1, 2], bypass: 0 as const },
    { layers: [3, 4], bypass: 0 as const },
  ];
  const plan = { ...unplanned(6), groups };
  const pass = { tokens: 1, context: 0 };
  const of = (profile: MachineProfile, planned: boolean) =>
    predictPass(
      planned
        ? { plan, shape: TINY, profile, placement: branchParallel(['0', '1']) }
        : { plan: unplanned(6), shape: TINY, profile, placement: onOneDevice('0') },
      pass,
    ).seconds;

  it('save a layer a pair, less the exchanges', () => {
    const four = predictPass(
      {
        plan: unplanned(4),
        shape: { ...TINY, layers: 4 },
        profile: free,
        placement: onOneDevice('0'),
      },
      pass,
    ).seconds;
    // A broadcast of 128 bytes and two all-reduces of that over links of 1e9 bytes/s.
    expect(of(free, true)).toBeCloseTo(four + (3 * 128) / 1e9, 12);
  });

  it('lose where an exchange costs more than a layer', () => {
    const dear = {
      ...free,
      links: free.links.map((link) => ({
        ...link,
        protocols: [{ baseSeconds: 1e-3, hopSeconds: 0, share: 1 }],
      })),
    };
    expect(of(dear, true)).toBeGreaterThan(of(dear, false));
  });
});

it('predicts prefill and decoding, with the prompt in the cache', () => {
  const options = {
    plan: unplanned(6),
    shape: TINY,
    profile: roundMachine(2),
    placement: tensorParallel(['0', '1']),
  };
  const { prefill, decode } = predictLatency({ ...options, promptTokens: 33 });
  expect(prefill).toEqual(predictPass(options, { tokens: 33, context: 0 }));
  expect(decode).toEqual(predictPass(options, { tokens: 1, context: 33 }));
  expect(predictLatency(options).prefill).toEqual(predictPass(options, { tokens: 128, context: 0 }));
});

it('says what does not fit', () => {
  const profile = roundMachine(1, { memoryBytes: 1000 });
  const options = { plan: unplanned(6), shape: TINY, profile, placement: onOneDevice('0') };
  expect(predictPass(options, { tokens: 1, context: 0 }).devices[0]).toMatchObject({ id: '0', fits: false });
});

import { describe, expect, it } from 'vitest';
import { calibrateLaunch, calibrateWork } from './calibrate.js';
import { datasheetProfile } from './datasheets.js';
import { onOneDevice } from './placement.js';
import { predictPass } from './predict.js';
import { EAGER_KERNELS, modelShape } from './shape.js';
import { roundMachine, TINY, unplanned } from './testing/instances.js';

const shape = { ...modelShape('llama-7b'), kernels: EAGER_KERNELS };
const pass = { tokens: 1, context: 10 };
const profile = datasheetProfile('a100-nvlink', 2);

it('finds the launch cost that explains a latency, for all devices, and changes nothing else', () => {
  const found = calibrateLaunch(profile, shape, pass, 0.04);
  const options = { plan: unplanned(32), shape, placement: onOneDevice('1'), profile: found };
  expect(predictPass(options, pass).seconds).toBeCloseTo(0.04, 12);
  const launchSeconds = found.devices[0]!.launchSeconds;
  expect(found).toEqual({
    ...profile,
    devices: profile.devices.map((device) => ({ ...device, launchSeconds })),
  });
});

it('refuses times that launches cannot explain', () => {
  for (const seconds of [0.001, Number.NaN]) {
    expect(() => calibrateLaunch(profile, shape, pass, seconds)).toThrow(/No launch cost/);
  }
});

describe('work', () => {
  const machine = roundMachine(2, {
    launchSeconds: 1e-5,
    runSeconds: 1e-4,
    products: [{ type: 'float16', m: 1, k: 64, n: 64, weightBits: 16, seconds: 1e-4 }],
    elementwise: [{ bytes: 100, seconds: 1e-6 }],
    operators: { sum: [{ bytes: 100, seconds: 1e-6 }] },
  });
  const at = (profile: typeof machine) =>
    predictPass({ plan: unplanned(6), shape: TINY, placement: onOneDevice('0'), profile }, pass);

  it('takes one factor for all kernels, and leaves what starting them costs', () => {
    const before = at(machine);
    for (const seconds of [0.8 * before.seconds, 3 * before.seconds]) {
      const found = calibrateWork(machine, TINY, pass, seconds);
      const after = at(found);
      expect(after.seconds).toBeCloseTo(seconds, 12);
      expect(after.parts.launch).toBeCloseTo(before.parts.launch, 12);
      const [a, b] = [found.devices[1]!, machine.devices[1]!];
      const factor = a.products![0]!.seconds / b.products![0]!.seconds;
      expect(b.memoryBytesPerSecond / a.memoryBytesPerSecond).toBeCloseTo(factor, 10);
      expect(b.peakFlops.float16! / a.peakFlops.float16!).toBeCloseTo(factor, 10);
      expect(a.elementwise![0]!.seconds / b.elementwise![0]!.seconds).toBeCloseTo(factor, 10);
      expect(a.operators!.sum![0]!.seconds / b.operators!.sum![0]!.seconds).toBeCloseTo(factor, 10);
      expect([a.launchSeconds, a.runSeconds, a.norms]).toEqual([b.launchSeconds, b.runSeconds, undefined]);
    }
  });

  it('refuses what starting kernels alone takes', () => {
    expect(() => calibrateWork(machine, TINY, pass, 1e-6)).toThrow(/starting them takes/);
    expect(() => calibrateWork(machine, TINY, pass, Number.NaN)).toThrow(/starting them takes/);
  });
});

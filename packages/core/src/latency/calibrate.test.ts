import { expect, it } from 'vitest';
import { calibrateLaunch } from './calibrate.js';
import { datasheetProfile } from './datasheets.js';
import { onOneDevice } from './placement.js';
import { predictPass } from './predict.js';
import { EAGER_KERNELS, modelShape } from './shape.js';
import { unplanned } from './testing/instances.js';

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

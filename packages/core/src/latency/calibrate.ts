import { UsageError } from '../errors.js';
import type { Pass } from './kernels.js';
import { onOneDevice } from './placement.js';
import { predictPass } from './predict.js';
import type { DeviceProfile, MachineProfile } from './profile.js';
import type { ModelShape } from './shape.js';

/**
 * The profile with the launch cost at which the unplanned model on the first device takes what was measured: for
 * runtimes whose own cost a kernel (Python, mostly) no datasheet says. Nothing else is changed.
 *
 * @param seconds measured, one pass of the unplanned model on the profile's first device
 * @throws UsageError `CALIBRATION_TOO_FAST` where the model takes longer even with launches that cost nothing
 */
export function calibrateLaunch(
  profile: MachineProfile,
  shape: ModelShape,
  pass: Pass,
  seconds: number,
): MachineProfile {
  const withLaunch = (launchSeconds: number): MachineProfile => ({
    ...profile,
    devices: profile.devices.map((device) => ({ ...device, launchSeconds })),
  });
  const plan = { version: 1 as const, layers: shape.layers, groups: [] };
  const placement = onOneDevice(profile.devices[0]!.id);
  const predicted = (launchSeconds: number): number =>
    predictPass({ plan, shape, placement, profile: withLaunch(launchSeconds) }, pass).seconds;
  const least = predicted(0);
  if (!(seconds > least)) {
    throw new UsageError('CALIBRATION_TOO_FAST', 'No launch cost explains this time.', {
      expected: `more than ${(1000 * least).toFixed(3)} ms, what memory and arithmetic alone take`,
      found: `${(1000 * seconds).toFixed(3)} ms`,
      hint: "correct the profile's rates",
    });
  }
  let [low, high] = [0, seconds];
  // Halved until doubles tell the two no longer apart; the latency rises with the launch cost.
  for (let i = 0; i < 60; i++) {
    const middle = (low + high) / 2;
    if (predicted(middle) < seconds) low = middle;
    else high = middle;
  }
  return withLaunch((low + high) / 2);
}

/**
 * The profile with all kernels' work longer (or shorter) by one factor, that with which the unplanned model on the first
 * device takes what was measured. A kernel among others finds the caches as those left them, and one that is measured among
 * its own kind finds them at their best: how much that makes is told by nothing but a run of the whole. What starting
 * kernels, runs and exchanges cost stays.
 *
 * @param seconds measured, one pass of the unplanned model on the profile's first device
 * @throws UsageError `CALIBRATION_TOO_FAST` where starting kernels alone takes longer
 */
export function calibrateWork(
  profile: MachineProfile,
  shape: ModelShape,
  pass: Pass,
  seconds: number,
): MachineProfile {
  const plan = { version: 1 as const, layers: shape.layers, groups: [] };
  const placement = onOneDevice(profile.devices[0]!.id);
  const predicted = (factor: number): number =>
    predictPass({ plan, shape, placement, profile: withWork(profile, factor) }, pass).seconds;
  // A factor can be as small as doubles go, but not 0: rates would have no end.
  const least = predicted(1e-9);
  if (!(seconds > least)) {
    throw new UsageError('CALIBRATION_TOO_FAST', 'No kernels are fast enough for this time.', {
      expected: `more than ${(1000 * least).toFixed(3)} ms, what starting them takes`,
      found: `${(1000 * seconds).toFixed(3)} ms`,
      hint: "correct the profile's cost of launches",
    });
  }
  let [low, high] = [1e-9, 1];
  while (predicted(high) < seconds) [low, high] = [high, 2 * high];
  for (let i = 0; i < 60; i++) {
    const middle = (low + high) / 2;
    if (predicted(middle) < seconds) low = middle;
    else high = middle;
  }
  return withWork(profile, (low + high) / 2);
}

function withWork(profile: MachineProfile, factor: number): MachineProfile {
  const longer = <T extends { readonly seconds: number }>(found: readonly T[] | undefined): T[] | undefined =>
    found?.map((one) => ({ ...one, seconds: factor * one.seconds }));
  const device = (one: DeviceProfile): DeviceProfile => {
    const { products, attention, elementwise, norms, operators } = one;
    const measured = Object.entries({
      products: longer(products),
      attention: longer(attention),
      elementwise: longer(elementwise),
      norms: longer(norms),
      operators:
        operators &&
        Object.fromEntries(Object.entries(operators).map(([name, points]) => [name, longer(points)])),
    }).filter(([, value]) => value !== undefined);
    return {
      ...one,
      peakFlops: Object.fromEntries(
        Object.entries(one.peakFlops).map(([type, rate]) => [type, rate / factor]),
      ),
      memoryBytesPerSecond: one.memoryBytesPerSecond / factor,
      kernelSeconds: one.kernelSeconds * factor,
      ...Object.fromEntries(measured),
    };
  };
  return { ...profile, devices: profile.devices.map(device) };
}

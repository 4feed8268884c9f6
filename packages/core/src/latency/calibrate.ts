import { UsageError } from '../errors.js';
import type { Pass } from './kernels.js';
import { onOneDevice } from './placement.js';
import { predictPass } from './predict.js';
import type { MachineProfile } from './profile.js';
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

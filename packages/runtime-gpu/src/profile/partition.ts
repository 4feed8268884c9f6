import { type DeviceProfile, type MachineProfile, UsageError } from '@cqil/core';
import { type MeasureOptions, measureProfile } from './measure.js';

/** The id of all devices of a partition together, as what is in no group uses them. */
export const ALL_DEVICES = 'all';

/**
 * What exchanging costs between threads that are awake, and what a part costs that begins: measured of `openPartitioned`
 * on two processors of an EPYC (docs/adr/0009), 0.6 to 0.9 µs each exchange, and 10 to 20 µs a group with all that is not
 * its branches. Small beside a branch, so that other machines' need not be known well.
 */
const EXCHANGE_SECONDS = 1e-6;
const PART_SECONDS = 6e-6;

/**
 * Measures the profile of a partition's devices, `cpu:0`, `cpu:1`, …: each as one thread while the others do the same, since they share what lies behind their caches, and all together as `all`, the
 * first of the profile, on which the trunk and the unplanned model run.
 *
 * @throws UsageError `DEVICES_INVALID`; what `measureProfile` throws
 */
export async function measurePartition(
  devices: readonly string[],
  options: Omit<MeasureOptions, 'threads' | 'sessions'>,
): Promise<MachineProfile> {
  const wrong = devices.find((device, i) => !/^cpu:\d+$/.test(device) || devices.indexOf(device) !== i);
  if (devices.length < 2 || wrong !== undefined) {
    throw new UsageError('DEVICES_INVALID', 'These are no devices to put the branches of a group on.', {
      expected: 'two devices or more, each once: cpu:0, cpu:1, …',
      found: wrong ?? (devices.join(', ') || 'none'),
    });
  }
  const together = await measureProfile({ ...options, threads: devices.length });
  const beside = await measureProfile({ ...options, threads: 1, sessions: devices.length });
  const named = ({ devices: [device] }: MachineProfile, id: string): DeviceProfile => ({
    ...device!,
    id,
    runSeconds: PART_SECONDS,
  });
  return {
    version: 1,
    name: `${together.name}, in parts on ${devices.join(', ')}`,
    sources: [...(together.sources ?? []), ...(beside.sources ?? []), 'exchanges: docs/adr/0009'],
    devices: [named(together, ALL_DEVICES), ...devices.map((id) => named(beside, id))],
    links: [
      {
        between: 'all',
        bytesPerSecond: beside.devices[0]!.memoryBytesPerSecond,
        protocols: [{ baseSeconds: EXCHANGE_SECONDS, hopSeconds: 0, share: 1 }],
      },
    ],
  };
}

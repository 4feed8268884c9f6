import { UsageError } from '../errors.js';
import type { Kernel } from './kernels.js';
import type { DeviceProfile, MeasuredProduct } from './profile.js';

/** What a kernel costs on a device, in seconds. */
export interface KernelCost {
  /** Host time to start it. */
  readonly launchSeconds: number;
  /** Device time however little it does. */
  readonly fixedSeconds: number;
  /** Device time for its work. */
  readonly workSeconds: number;
  /** What the work's time is set by. */
  readonly bound: 'compute' | 'memory';
}

/**
 * The roofline (Williams, Waterman and Patterson 2009): a kernel takes as long as its operations at the peak rate or
 * its bytes at the memory's rate, whichever is longer; here with a fixed cost before it. Where products were measured,
 * the roofline gives the form and the measurements its height: the ratio of measured to computed time, interpolated
 * between shapes, so that a measured shape gets exactly its time.
 *
 * @throws UsageError `PROFILE_NO_RATE` where the device has no rate for the kernel's type
 */
export function kernelCost(kernel: Kernel, device: DeviceProfile): KernelCost {
  const { launchSeconds, kernelSeconds: fixedSeconds } = device;
  const { work, bound } = rooflineOf(kernel, device);
  const measured = kernel.product === undefined ? undefined : correction(kernel, device);
  return {
    launchSeconds,
    fixedSeconds,
    workSeconds: measured === undefined ? work : Math.max(0, (fixedSeconds + work) * measured - fixedSeconds),
    bound,
  };
}

/** `kernelCost` on one device, worked out once a kernel: the layers of a program share theirs. */
export function kernelCosts(device: DeviceProfile): (kernel: Kernel) => KernelCost {
  const known = new Map<Kernel, KernelCost>();
  return (kernel) => {
    const before = known.get(kernel);
    if (before !== undefined) return before;
    const cost = kernelCost(kernel, device);
    known.set(kernel, cost);
    return cost;
  };
}

function rooflineOf(
  { type, flops, bytes }: Pick<Kernel, 'type' | 'flops' | 'bytes'>,
  device: DeviceProfile,
): { work: number; bound: 'compute' | 'memory' } {
  const compute = flops === 0 ? 0 : flops / (rateOf(device, type) * device.computeEfficiency);
  const memory = bytes / (device.memoryBytesPerSecond * memoryShare(device, bytes));
  return compute > memory ? { work: compute, bound: 'compute' } : { work: memory, bound: 'memory' };
}

function rateOf(device: DeviceProfile, type: Kernel['type']): number {
  const rate = device.peakFlops[type];
  if (rate !== undefined) return rate;
  throw new UsageError('PROFILE_NO_RATE', `The profile of ${device.id} has no rate for ${type}.`, {
    expected: `peakFlops.${type}`,
    found: `rates for ${Object.keys(device.peakFlops).join(', ')}`,
    hint: 'add it to the profile, or take a shape that computes in another type',
  });
}

/** Share of the memory bandwidth that a kernel of so many bytes reaches. */
function memoryShare({ memoryEfficiency: points }: DeviceProfile, bytes: number): number {
  const next = points.findIndex((point) => point.bytes >= bytes);
  if (next === 0) return points[0]!.share;
  if (next < 0) return points.at(-1)!.share;
  const [low, high] = [points[next - 1]!, points[next]!];
  const at = Math.log(bytes / low.bytes) / Math.log(high.bytes / low.bytes);
  return low.share + at * (high.share - low.share);
}

/**
 * Measured over computed time for a product's shape: the mean over the measured shapes of its type, weighted by the
 * inverse square of their distance in (log m, log k, log n, log bits). Undefined where nothing was measured.
 */
function correction({ type, product }: Kernel, device: DeviceProfile): number | undefined {
  const { m, k, n, weightBits } = product!;
  let sum = 0;
  let weights = 0;
  for (const one of device.products ?? []) {
    if (one.type !== type) continue;
    const ratio = one.seconds / (device.kernelSeconds + rooflineOf(work(one), device).work);
    const distance =
      Math.log(m / one.m) ** 2 +
      Math.log(k / one.k) ** 2 +
      Math.log(n / one.n) ** 2 +
      Math.log(weightBits / one.weightBits) ** 2;
    if (distance < 1e-12) return ratio;
    sum += ratio / distance;
    weights += 1 / distance;
  }
  return weights === 0 ? undefined : sum / weights;
}

/** What a measured product computes and moves; its input and output are of the type, or float32 beside integers. */
function work({ type, m, k, n, weightBits }: MeasuredProduct): Pick<Kernel, 'type' | 'flops' | 'bytes'> {
  const activationBytes = type === 'float16' || type === 'bfloat16' ? 2 : 4;
  return { type, flops: 2 * m * k * n, bytes: (k * n * weightBits) / 8 + m * (k + n) * activationBytes };
}

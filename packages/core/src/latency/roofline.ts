import { UsageError } from '../errors.js';
import type { Kernel } from './kernels.js';
import type { DeviceProfile, MeasuredAttention, MeasuredProduct } from './profile.js';

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
 * its bytes at the memory's rate, whichever is longer; here with a fixed cost before it. Where products and attentions
 * were measured, the roofline gives the form and the measurements its height: the ratio of measured to computed time,
 * interpolated between shapes, so that a measured shape gets exactly its time. Element-wise kernels that were measured
 * take what lies between the measurements next to their bytes.
 *
 * @throws UsageError `PROFILE_NO_RATE` where the device has no rate for the kernel's type
 */
export function kernelCost(kernel: Kernel, device: DeviceProfile): KernelCost {
  const { launchSeconds, kernelSeconds: fixedSeconds } = device;
  const { work, bound } = rooflineOf(kernel, device);
  const cost = (workSeconds: number) => ({ launchSeconds, fixedSeconds, workSeconds, bound });
  const points = pointsOf(kernel, device);
  if (points !== undefined) return cost(between(points, kernel.bytes));
  const measured = correction(kernel, device);
  return cost(measured === undefined ? work : Math.max(0, (fixedSeconds + work) * measured - fixedSeconds));
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

/** Measured kernels of the kind; norms and operators are element-wise ones where none was measured. */
function pointsOf({ kind, operator }: Kernel, { elementwise, norms, operators }: DeviceProfile) {
  const own = kind === 'norm' ? norms : operator === undefined ? undefined : operators?.[operator];
  if (own !== undefined && own.length > 0) return own;
  const other = kind === 'norm' || kind === 'small' ? elementwise : undefined;
  return other?.length === 0 ? undefined : other;
}

/** Seconds for so many bytes: on lines between the points, from nothing to the first and on beyond the last. */
function between(
  points: readonly { readonly bytes: number; readonly seconds: number }[],
  bytes: number,
): number {
  const next = Math.max(
    0,
    points.findIndex((point) => point.bytes >= bytes),
  );
  const last = points.at(-1)!;
  if (bytes > last.bytes) return (last.seconds * bytes) / last.bytes;
  const [low, high] = [points[next - 1] ?? { bytes: 0, seconds: 0 }, points[next]!];
  return low.seconds + ((bytes - low.bytes) / (high.bytes - low.bytes)) * (high.seconds - low.seconds);
}

/** What was measured of a kind of kernel: where it lies among shapes, and measured over computed time. */
interface Sample {
  readonly at: readonly number[];
  readonly ratio: number;
}

/**
 * Measured over computed time for a kernel's shape: the mean over the measured shapes of its type, weighted by the
 * inverse sixth power of their distance in the logarithms of the sizes (of products m, k, n and bits, of attentions new
 * tokens, all tokens and heads). Undefined where nothing was measured.
 *
 * The power is above the number of sizes, else many measurements far away would outweigh the few nearby (Shepard 1968).
 */
function correction(kernel: Kernel, device: DeviceProfile): number | undefined {
  const { type, product, attention } = kernel;
  if (product !== undefined) {
    const samples = (device.products ?? [])
      .filter((one) => one.type === type)
      .map((one) => ({ at: productAt(one), ratio: ratioOf(one.seconds, productWork(one), device) }));
    return interpolated(productAt(product), samples);
  }
  if (attention !== undefined) {
    const samples = (device.attention ?? [])
      .filter((one) => one.type === type)
      .map((one) => ({ at: attentionAt(one), ratio: ratioOf(one.seconds, attentionWork(one), device) }));
    return interpolated(attentionAt(attention), samples);
  }
  return undefined;
}

function interpolated(at: readonly number[], samples: readonly Sample[]): number | undefined {
  let sum = 0;
  let weights = 0;
  for (const sample of samples) {
    const distance = at.reduce((total, one, i) => total + (one - sample.at[i]!) ** 2, 0);
    if (distance < 1e-12) return sample.ratio;
    const weight = distance ** -3;
    sum += sample.ratio * weight;
    weights += weight;
  }
  return weights === 0 ? undefined : sum / weights;
}

type Work = Pick<Kernel, 'type' | 'flops' | 'bytes'>;

function ratioOf(seconds: number, work: Work, device: DeviceProfile): number {
  return seconds / (device.kernelSeconds + rooflineOf(work, device).work);
}

function productAt({ m, k, n, weightBits }: NonNullable<Kernel['product']>): number[] {
  return [m, k, n, weightBits].map(Math.log);
}

function attentionAt({ tokens, context, heads }: NonNullable<Kernel['attention']>): number[] {
  return [tokens, context + tokens, heads].map(Math.log);
}

/** What a measured product computes and moves; its input and output are of the type, or float32 beside integers. */
function productWork({ type, m, k, n, weightBits }: MeasuredProduct): Work {
  return {
    type,
    flops: 2 * m * k * n,
    bytes: (k * n * weightBits) / 8 + m * (k + n) * activationBytes(type),
  };
}

function attentionWork({ type, tokens, context, heads, kvHeads, headDim }: MeasuredAttention): Work {
  const pairs = tokens * context + (tokens * (tokens + 1)) / 2;
  const bytes = activationBytes(type);
  return {
    type,
    flops: 4 * pairs * heads * headDim,
    bytes: 2 * kvHeads * headDim * (context + tokens) * bytes + 2 * tokens * heads * headDim * bytes,
  };
}

function activationBytes(type: Kernel['type']): number {
  return type === 'float16' || type === 'bfloat16' ? 2 : 4;
}

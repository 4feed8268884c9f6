import { seededRandom } from '@cqil/runtime-gpu';

/** A 95 % interval. */
export interface Interval {
  readonly low: number;
  readonly high: number;
}

/**
 * The 95 % interval of the mean of a series whose neighbours are not independent: percentile bootstrap over
 * blocks of neighbouring values (Künsch, "The jackknife and the bootstrap for general stationary
 * observations", Annals of Statistics 17, 1989; blocks here do not overlap).
 *
 * @returns `undefined` with fewer than 4 blocks, where the interval would mean nothing
 */
export function meanInterval(
  values: ArrayLike<number>,
  options: { readonly block?: number; readonly resamples?: number; readonly seed?: number } = {},
): Interval | undefined {
  const { block = 64, resamples = 1000, seed = 1 } = options;
  const sums: { sum: number; count: number }[] = [];
  for (let start = 0; start < values.length; start += block) {
    const end = Math.min(start + block, values.length);
    let sum = 0;
    for (let i = start; i < end; i++) sum += values[i]!;
    sums.push({ sum, count: end - start });
  }
  if (sums.length < 4) return undefined;
  const random = seededRandom(seed);
  const means = Float64Array.from({ length: resamples }, () => {
    let sum = 0;
    let count = 0;
    for (let i = 0; i < sums.length; i++) {
      const drawn = sums[Math.floor(random() * sums.length)]!;
      sum += drawn.sum;
      count += drawn.count;
    }
    return sum / count;
  }).sort();
  const at = (share: number) => means[Math.min(resamples - 1, Math.floor(share * resamples))]!;
  return { low: at(0.025), high: at(0.975) };
}

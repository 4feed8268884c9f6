/** Where the measured values lie. */
export interface Spread {
  readonly median: number;
  readonly min: number;
  readonly max: number;
  /** First and third quartile: half of the values lie between them. */
  readonly q1: number;
  readonly q3: number;
  /** How many values there are. */
  readonly count: number;
}

/** Quantiles by linear interpolation between order statistics (Hyndman and Fan 1996, type 7). */
export function spread(values: readonly number[]): Spread {
  const sorted = [...values].sort((a, b) => a - b);
  const quantile = (share: number) => {
    const at = share * (sorted.length - 1);
    const below = Math.floor(at);
    const low = sorted[below] ?? Number.NaN;
    const high = sorted[Math.min(below + 1, sorted.length - 1)] ?? Number.NaN;
    return low + (high - low) * (at - below);
  };
  return {
    median: quantile(0.5),
    min: quantile(0),
    max: quantile(1),
    q1: quantile(0.25),
    q3: quantile(0.75),
    count: sorted.length,
  };
}

/** Made-up numbers in place of the process's clock: whatever the pacing makes of them. */
export function anyClock(times: readonly number[]): () => number {
  let now = 0;
  let i = 0;
  return () => {
    now += times[i++ % times.length]!;
    return now;
  };
}

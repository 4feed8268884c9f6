/** Numbers in place of the process's clock: any, so that the pacing does anything. */
export function anyClock(times: readonly number[]): () => number {
  let now = 0;
  let i = 0;
  return () => {
    now += times[i++ % times.length]!;
    return now;
  };
}

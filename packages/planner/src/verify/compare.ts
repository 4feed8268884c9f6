/** The largest distance between two lists of numbers; infinite where either has no number or lengths differ. */
export function maxAbsDifference(a: Float32Array, b: Float32Array): number {
  if (a.length !== b.length) return Number.POSITIVE_INFINITY;
  let worst = 0;
  for (let i = 0; i < a.length; i++) {
    const distance = Math.abs((a[i] as number) - (b[i] as number));
    // A comparison with NaN is false, so it is the smaller distance that must be shown.
    if (!(distance <= worst)) worst = Number.isNaN(distance) ? Number.POSITIVE_INFINITY : distance;
  }
  return worst;
}

/** Index of the largest value, the first of equal ones. */
export function rowArgmax(row: Float32Array): number {
  return best(row).index;
}

/** The largest value of a row, and how far the second lies below it. */
export function best(row: Float32Array): { index: number; margin: number } {
  let index = 0;
  let first = Number.NEGATIVE_INFINITY;
  let second = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < row.length; i++) {
    const value = row[i] as number;
    if (value > first) {
      second = first;
      first = value;
      index = i;
    } else if (value > second) second = value;
  }
  return { index, margin: first - second };
}

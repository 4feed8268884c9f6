/** The index of the largest value, the first of equals; NaN never wins. */
export function argmax(values: Float32Array): number {
  let best = 0;
  let bestValue = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < values.length; i++) {
    if (values[i]! > bestValue) {
      best = i;
      bestValue = values[i]!;
    }
  }
  return best;
}

/** The largest value but that at `best`; -Infinity where there is none. */
export function secondBest(values: Float32Array, best: number): number {
  let value = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < values.length; i++) if (values[i]! > value && i !== best) value = values[i]!;
  return value;
}

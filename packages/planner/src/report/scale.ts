/** From a value to a coordinate. */
export type Scale = (value: number) => number;

/** Maps `from` to `to`, linearly. A domain of no width maps to the middle. */
export function linear(from: readonly [number, number], to: readonly [number, number]): Scale {
  const width = from[1] - from[0];
  if (width === 0) return () => (to[0] + to[1]) / 2;
  return (value) => to[0] + ((value - from[0]) / width) * (to[1] - to[0]);
}

/** As {@link linear}, over the logarithm; what lies below `from[0]` (zeros, too) is put there. `from[0]` > 0. */
export function logarithmic(from: readonly [number, number], to: readonly [number, number]): Scale {
  const inner = linear([Math.log(from[0]), Math.log(from[1])], to);
  return (value) => inner(Math.log(Math.max(value, from[0])));
}

/**
 * A scale for excess perplexity: logarithmic in the perplexity ratio 1 + excess, so that what is 0 has a place, and
 * both a few per cent and a thousand can be read.
 */
export function excessScale(domain: readonly [number, number], to: readonly [number, number]): Scale {
  const ratio = logarithmic([1 + domain[0], 1 + domain[1]], to);
  return (value) => ratio(1 + value);
}

/** The domain of all values, with 0 in it and never without width. Values are above −1. */
export function excessDomain(values: readonly number[]): [number, number] {
  const usable = values.filter(Number.isFinite);
  const low = Math.max(Math.min(0, ...usable), -0.99);
  const high = Math.max(0.05, ...usable);
  return [low < 0 ? (1 + low) * 0.98 - 1 : 0, (1 + high) * 1.04 - 1];
}

const EXCESS_TICKS = [
  0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 7, 10, 15, 20, 30, 50, 100, 200, 500, 1000,
  1e4, 1e5, 1e6, -0.02, -0.05, -0.1, -0.2, -0.3, -0.5, -0.75, -0.9,
];

/** Round values of excess within the domain, at least `gap` apart on the scale; 0 is always among them. */
export function excessTicks(domain: readonly [number, number], scale: Scale, gap: number): number[] {
  return apart(
    EXCESS_TICKS.filter((tick) => tick >= domain[0] && tick <= domain[1]),
    scale,
    gap,
  );
}

/** 1, 2 and 5 times the powers of ten within the domain, at least `gap` apart on the scale; powers go first. */
export function logTicks(domain: readonly [number, number], scale: Scale, gap: number): number[] {
  const low = Math.floor(Math.log10(domain[0]));
  const high = Math.ceil(Math.log10(domain[1]));
  const powers = Array.from({ length: high - low + 1 }, (_, i) => low + i);
  const all = [1, 2, 5].flatMap((digit) => powers.map((power) => Number(`${digit}e${power}`)));
  return apart(
    all.filter((tick) => tick >= domain[0] && tick <= domain[1]),
    scale,
    gap,
  );
}

/** Whole numbers in even steps, at most `most` of them. */
export function wholeTicks(low: number, high: number, most: number): number[] {
  const step = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000].find(
    (s) => Math.floor(high / s) - Math.ceil(low / s) < most,
  );
  const width = step ?? 5000;
  const first = Math.ceil(low / width) * width;
  return Array.from(
    { length: Math.max(0, Math.floor((high - first) / width) + 1) },
    (_, i) => first + i * width,
  );
}

/** Greedy: earlier values win. Ascending. */
function apart(values: readonly number[], scale: Scale, gap: number): number[] {
  const kept: number[] = [];
  for (const value of values) {
    if (kept.every((other) => Math.abs(scale(other) - scale(value)) >= gap)) kept.push(value);
  }
  return kept.sort((a, b) => a - b);
}

/**
 * Moves labels apart along one axis: as near to where they want to be as their order and `gap` allow.
 *
 * @returns places in the order of `wanted`
 */
export function spread(wanted: readonly number[], gap: number): number[] {
  const order = wanted.map((_, i) => i).sort((a, b) => wanted[a]! - wanted[b]! || a - b);
  // Labels that touch are one block, which sits at the mean of what its members want (pool adjacent violators).
  const blocks: { sum: number; size: number }[] = [];
  const start = ({ sum, size }: { sum: number; size: number }) => sum / size;
  for (const [rank, index] of order.entries()) {
    let block = { sum: wanted[index]! - rank * gap, size: 1 };
    for (let last = blocks.at(-1); last !== undefined && start(last) > start(block); last = blocks.at(-1)) {
      block = { sum: last.sum + block.sum, size: last.size + block.size };
      blocks.pop();
    }
    blocks.push(block);
  }
  const places: number[] = [];
  let rank = 0;
  for (const block of blocks) {
    for (let i = 0; i < block.size; i++, rank++) places[order[rank]!] = start(block) + rank * gap;
  }
  return places;
}

import { itemsOf, type Written } from './types.js';

/** Sums and differences of one and two digits, and how far off the wrong results are. */
const SUMS: readonly (readonly [a: number, sign: '+' | '-', b: number])[] = [
  [2, '+', 3],
  [4, '+', 4],
  [1, '+', 6],
  [7, '+', 2],
  [5, '+', 3],
  [6, '+', 5],
  [8, '+', 7],
  [9, '+', 4],
  [3, '+', 9],
  [8, '+', 6],
  [9, '-', 4],
  [7, '-', 5],
  [8, '-', 2],
  [6, '-', 3],
  [5, '-', 1],
  [12, '+', 5],
  [21, '+', 7],
  [14, '+', 14],
  [30, '+', 25],
  [42, '+', 16],
  [27, '+', 15],
  [38, '+', 24],
  [19, '+', 63],
  [46, '+', 37],
  [18, '-', 6],
  [29, '-', 15],
  [50, '-', 20],
  [43, '-', 17],
  [75, '-', 38],
  [91, '-', 56],
  [64, '-', 29],
  [33, '+', 48],
];

const SHOTS = '3 + 1 = 4\n10 + 12 = 22\n9 - 2 = 7\n45 - 21 = 24\n';

/**
 * Wrong results near the right one, as slips give them: off by one or two, or a ten carried wrongly. They have as
 * many digits as the right one: a shorter one could be its beginning.
 */
function written([a, sign, b]: (typeof SUMS)[number], i: number): Written {
  const right = sign === '+' ? a + b : a - b;
  const slips = (right < 10 ? [1, -1, 2, -2, 3, -3] : [10, -1, 1, -10, 2, 20]).map((off) => right + off);
  const alike = slips.filter((value) => value > 0 && String(value).length === String(right).length);
  const wrong = [0, 1, 2].map((at) => alike[(at + i) % alike.length]!);
  return [`${a} ${sign} ${b} =`, String(right), ...wrong.map(String)];
}

export const arithmetic = itemsOf('arithmetic', SUMS.map(written), (sum) => SHOTS + sum);

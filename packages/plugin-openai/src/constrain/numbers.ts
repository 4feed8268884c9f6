import { anyOf, characterClass, literal, repeat, sequence } from './ebnf.js';

/** A bound, and whether the number may reach it. */
export interface Bound {
  readonly value: number;
  readonly exclusive: boolean;
}

const DIGIT = '[0-9]';
/** As many digits as a double keeps, whatever they are. */
const LARGEST_INTEGER = 999_999_999_999_999;
/** Leaves room for the digits behind the point. */
const LARGEST_NUMBER = 999_999_999;
const FRACTION = `"." ${DIGIT}{1,6}`;

/** Whole numbers between two bounds; of unbounded ones, those of up to 15 digits. `undefined`: there are none. */
export function integerRange(low: Bound | undefined, high: Bound | undefined): string | undefined {
  const from =
    low === undefined ? -LARGEST_INTEGER : Math.floor(low.value) + (isReached(low, Math.ceil) ? 0 : 1);
  const to =
    high === undefined ? LARGEST_INTEGER : Math.ceil(high.value) - (isReached(high, Math.floor) ? 0 : 1);
  const first = Math.max(from, -LARGEST_INTEGER);
  const last = Math.min(to, LARGEST_INTEGER);
  if (first > last) return undefined;
  const parts: string[] = [];
  if (last >= 0) parts.push(natural(Math.max(first, 0), last));
  if (first < 0) parts.push(sequence('"-"', natural(Math.max(-last, 1), -first)));
  return anyOf(parts);
}

/** Whether the bound is a whole number that may be taken. */
function isReached({ value, exclusive }: Bound, round: (value: number) => number): boolean {
  return round(value) === value && !exclusive;
}

/**
 * Numbers between two bounds that are whole numbers, with up to six digits behind the point. `undefined`: there are
 * none.
 *
 * @throws RangeError for a bound that is no whole number, or too large
 */
export function numberRange(low: Bound | undefined, high: Bound | undefined): string | undefined {
  const from = low ?? { value: -LARGEST_NUMBER, exclusive: false };
  const to = high ?? { value: LARGEST_NUMBER, exclusive: false };
  for (const { value } of [from, to]) {
    if (!Number.isInteger(value) || Math.abs(value) > LARGEST_NUMBER) {
      throw new RangeError(`bounds of a number must be whole numbers of up to nine digits, not ${value}`);
    }
  }
  const parts: (string | undefined)[] = [];
  if (to.value >= 0) parts.push(segment(from.value >= 0 ? from : ZERO, to));
  if (from.value < 0) {
    const negated = ({ value, exclusive }: Bound): Bound => ({ value: -value, exclusive });
    const part = segment(to.value < 0 ? negated(to) : ZERO, negated(from));
    if (part !== undefined) parts.push(sequence('"-"', part));
  }
  const said = parts.filter((part) => part !== undefined);
  return said.length === 0 ? undefined : anyOf(said);
}

const ZERO: Bound = { value: 0, exclusive: false };

/** Numbers between two that are not negative. */
function segment(from: Bound, to: Bound): string | undefined {
  if (from.value > to.value) return undefined;
  const parts: string[] = [];
  let first = from.value;
  if (from.exclusive && first < to.value) {
    // A fraction that is more than nothing.
    parts.push(sequence(literal(String(first)), `"." ${DIGIT}{0,5} [1-9]`));
    first++;
  } else if (from.exclusive) return undefined;
  if (first < to.value) parts.push(sequence(natural(first, to.value - 1), `(${FRACTION})?`));
  if (!to.exclusive) parts.push(literal(String(to.value)));
  return parts.length === 0 ? undefined : anyOf(parts);
}

/** Whole numbers from `low` to `high`, which are not negative, without zeros before them. */
function natural(low: number, high: number): string {
  const parts: string[] = [];
  for (let digits = String(low).length; digits <= String(high).length; digits++) {
    const least = digits === 1 ? 0 : 10 ** (digits - 1);
    parts.push(sameLength(String(Math.max(low, least)), String(Math.min(high, 10 ** digits - 1))));
  }
  return anyOf(parts);
}

/** Numbers of as many digits as both bounds have. */
function sameLength(low: string, high: string): string {
  const rest = low.length - 1;
  const [first, last] = [Number(low[0]), Number(high[0])];
  const any = repeat(DIGIT, rest, rest);
  if (rest === 0 || (/^.0*$/.test(low) && /^.9*$/.test(high))) return sequence(digits(first, last), any);
  if (first === last) return sequence(digits(first, first), sameLength(low.slice(1), high.slice(1)));
  const parts = [
    sequence(digits(first, first), sameLength(low.slice(1), '9'.repeat(rest))),
    sequence(digits(last, last), sameLength('0'.repeat(rest), high.slice(1))),
  ];
  if (last - first > 1) parts.push(sequence(digits(first + 1, last - 1), any));
  return anyOf(parts);
}

function digits(first: number, last: number): string {
  const code = (digit: number) => '0'.charCodeAt(0) + digit;
  return first === last ? literal(String(first)) : characterClass([[code(first), code(last)]]);
}

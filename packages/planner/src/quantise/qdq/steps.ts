import { type CodeBits, headroom, largestCode } from './codes.js';
import type { MagnitudeHistogram } from './histogram.js';

/** Ways to choose the step of a value from what was seen of it. */
export const STEP_RULES = ['error', 'max', 'percentile'] as const;
/**
 * `error`: the step with the least mean squared error, massive tokens held to a share; `max`: all that was seen can be
 * stored, in 16 bits twice as much; `percentile`: all but one value of ten thousand.
 */
export type StepRule = (typeof STEP_RULES)[number];

const PERCENTILE = 0.9999;
/** Steps that are tried: so many an octave, over so many octaves below that of the largest value. */
const TRIES = 8;
const OCTAVES = 14;

/** A step for a value, and its error. */
export interface Step {
  readonly step: number;
  readonly bits: CodeBits;
  /** Mean squared error over mean square, massive tokens held to a share. */
  readonly error: number;
}

/** The step of a value that is stored by itself; float32. */
export function stepOf(histogram: MagnitudeHistogram, bits: CodeBits, rule: StepRule = 'error'): Step {
  const { largest, power } = histogram;
  // Next to nothing is nothing: its step would not divide.
  const whole = Math.fround(largest / largestCode(bits)) || 1;
  const measured = (step: number): Step => {
    const rounded = Math.fround(step);
    const error = power > 0 ? histogram.error(rounded, bits) / power : 0;
    return { step: rounded, bits, error };
  };
  if (rule === 'max') return measured(headroom(bits) * whole);
  if (rule === 'percentile') return measured(histogram.quantile(PERCENTILE) / largestCode(bits) || whole);
  let best = measured(headroom(bits) * whole);
  const least = histogram.heavy / largestCode(bits);
  for (let k = 0; k <= TRIES * OCTAVES; k++) {
    const step = whole * 2 ** (-k / TRIES);
    if (step < least) break;
    const next = measured(step);
    if (next.error < best.error) best = next;
  }
  return best;
}

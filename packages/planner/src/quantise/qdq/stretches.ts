import { type CodeBits, headroom, largestCode } from './codes.js';
import type { MagnitudeHistogram } from './histogram.js';

/** Neighbouring places of the residual stream whose values have one step. */
export interface Stretch {
  /** First place, and the one past the last. */
  readonly from: number;
  readonly to: number;
  /** A float32; those of one model are powers of two of each other. */
  readonly step: number;
}

/** What is quantised at one place of the stream. */
export interface Place {
  /** Of everything that is added up there, and of the sums. */
  readonly values: readonly MagnitudeHistogram[];
  /** Of the stream behind it: what errors are measured against. */
  readonly stream: MagnitudeHistogram;
}

/** How many times the coarsest step is halved at most. */
const HALVINGS = 30;
/** Where no step meets the tolerance, one that errs at most so many times as much as the best is as good. */
const NEAR = 2;

/**
 * The steps of the residual stream, the same for as many places in a row as can be: integers of one step are added as
 * they are (AQD, arXiv 2007.06919), between two stretches they are shifted, since all steps are a power of two times the
 * largest magnitude of all, with its headroom, over the largest code.
 *
 * The rule: a step serves a place when nothing that was seen there saturates, in 16 bits not if it were twice as large
 * (`headroom`: other text is larger here and there), and when rounding everything that is added
 * up there errs by at most `tolerance` of the stream's mean square, or, where no step errs so little, at most twice as
 * much as the finest that leaves that room. From the embedding on, a stretch is as long as one step serves all its
 * places, and has the finest of those. So there are as few stretches as there can be. An infinite tolerance makes one
 * of all. Saturation is no way out: on SmolLM2 a stream that is cut at a third of its massive activations is lost.
 *
 * @param tolerance relative to the mean square
 */
export function chooseStretches(
  places: readonly Place[],
  bits: CodeBits,
  tolerance: number,
): readonly Stretch[] {
  const largest = Math.max(...places.flatMap(({ values }) => values.map((value) => value.largest)));
  const unit = Math.fround(largest > 0 ? (headroom(bits) * largest) / largestCode(bits) : 1);
  const serving = places.map((place) => servingSteps(place, bits, unit, tolerance));
  const stretches: Stretch[] = [];
  for (let from = 0; from < places.length; ) {
    let [coarsest, finest] = serving[from] as [number, number];
    let to = from + 1;
    for (; to < places.length; to++) {
      const [first, last] = serving[to] as [number, number];
      if (Math.max(coarsest, first) > Math.min(finest, last)) break;
      [coarsest, finest] = [Math.max(coarsest, first), Math.min(finest, last)];
    }
    stretches.push({ from, to, step: unit * 2 ** -finest });
    from = to;
  }
  return stretches;
}

/** The least and the largest number of halvings that serve a place. */
function servingSteps(place: Place, bits: CodeBits, unit: number, tolerance: number): [number, number] {
  const largest = headroom(bits) * Math.max(...place.values.map((value) => value.largest));
  let finest = 0;
  // Half a step more is rounded to the largest code.
  const reach = (halvings: number) => (largestCode(bits) + 0.5) * unit * 2 ** -halvings;
  while (finest < HALVINGS && reach(finest + 1) > largest) finest += 1;
  const limit = Math.max(tolerance, NEAR * relativeError(place, bits, unit * 2 ** -finest));
  let coarsest = finest;
  while (coarsest > 0 && relativeError(place, bits, unit * 2 ** -(coarsest - 1)) <= limit) coarsest -= 1;
  return [coarsest, finest];
}

function relativeError({ values, stream }: Place, bits: CodeBits, step: number): number {
  const sum = values.reduce((total, value) => total + value.error(step, bits), 0);
  return stream.power > 0 ? sum / stream.power : 0;
}

/** The stretch that a place is in. */
export function stretchAt(stretches: readonly Stretch[], place: number): Stretch {
  return stretches.find(({ to }) => place < to) ?? (stretches.at(-1) as Stretch);
}

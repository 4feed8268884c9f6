import { type CandidateSet, checkCost, type Selection } from './candidates.js';
import type { CandidateGroup } from './costs.js';

/**
 * How long a plan may take: what its groups change the unplanned model's latency by, each by itself, may come to no more
 * than so much together. In any unit; as shares of the unplanned latency, `most` of 1.3 times as fast is 1 / 1.3 − 1.
 */
export interface LatencyLimit<C extends CandidateGroup> {
  /** What a group changes the latency by; negative where it is faster than its layers one after the other. Finite. */
  readonly change: (candidate: C) => number;
  /** What the changes of a plan's groups may come to. */
  readonly most: number;
}

/** Sums of a few shares in another order are no other sums. */
const ROUNDING = 1e-12;

/** Which plans of a set keep to a limit. */
export class Delays {
  /** By candidate. */
  readonly #change: Float64Array;
  /** `[layer][steps]`: the least change by groups in that layer and later ones that save so many steps together. */
  readonly #least: Float64Array;
  readonly #width: number;

  private constructor(
    readonly set: CandidateSet,
    readonly most: number,
    change: Float64Array,
  ) {
    this.#change = change;
    this.#width = set.layers;
    this.#least = this.#table();
  }

  /** @throws PlanError `PLAN_PARAMETERS` where a change or the limit is no number */
  static of<C extends CandidateGroup>(
    set: CandidateSet,
    candidates: readonly C[],
    { change, most }: LatencyLimit<C>,
  ): Delays {
    checkCost(most, 'latency.most');
    const changes = Float64Array.from(set.all, ({ input }) => {
      const value = change(candidates[input]!);
      checkCost(value, `latency.change of candidates[${input}]`);
      return value;
    });
    return new Delays(set, most, changes);
  }

  /** Of a candidate. */
  change(id: number): number {
    return this.#change[id]!;
  }

  allows(selection: Selection): boolean {
    return selection.reduce((sum, id) => sum + this.#change[id]!, 0) <= this.most + ROUNDING;
  }

  /** Whether some plan that changes the latency so far by `sum` can keep to the limit with groups from layer `from` on. */
  reaches(sum: number, from: number, left: number): boolean {
    return sum + this.#least[from * this.#width + left]! <= this.most + ROUNDING;
  }

  /** The least that plans that save so many steps change the latency by; +∞ where there are none. */
  least(saved: number): number {
    return this.#least[saved] ?? Number.POSITIVE_INFINITY;
  }

  /** A plan that changes it by that. */
  fastest(saved: number): Selection {
    const chosen: number[] = [];
    let [from, left] = [0, saved];
    while (left > 0) {
      const here = this.#least[from * this.#width + left]!;
      const next = this.set.startingAt[from]!.find(
        ({ id, end, saved: own }) =>
          own <= left && this.#change[id]! + this.#least[end * this.#width + left - own]! === here,
      );
      if (next === undefined) {
        from += 1;
        continue;
      }
      chosen.push(next.id);
      [from, left] = [next.end, left - next.saved];
    }
    return chosen;
  }

  #table(): Float64Array {
    const { layers, startingAt } = this.set;
    const width = this.#width;
    const least = new Float64Array((layers + 1) * width).fill(Number.POSITIVE_INFINITY);
    least[layers * width] = 0;
    for (let from = layers - 1; from >= 0; from--) {
      for (let left = 0; left < width; left++) {
        let best = least[(from + 1) * width + left]!;
        for (const { id, end, saved } of startingAt[from]!) {
          if (saved > left) continue;
          best = Math.min(best, this.#change[id]! + least[end * width + left - saved]!);
        }
        least[from * width + left] = best;
      }
    }
    return least;
  }
}

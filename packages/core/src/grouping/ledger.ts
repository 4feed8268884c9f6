import { PlanError } from '../errors.js';
import { validatePlan } from '../plan/parse.js';
import type { Plan } from '../plan/types.js';
import type { OnProgress } from '../progress.js';
import {
  type CandidateSet,
  checkCost,
  compareSelections,
  type RankedSelection,
  type Selection,
  selectionReader,
  toPlan,
} from './candidates.js';
import type { PlanCost } from './optimal.js';

/** How a search comes to know what plans cost. */
export interface MeasuringOptions {
  /** What a plan costs jointly; finite, smaller is better. Called for one plan at a time, never twice for one. */
  readonly measure: (plan: Plan) => Promise<number>;
  /**
   * Measurements at hand, for example of a search that was interrupted. Where the search wants a plan that is among
   * them it takes the number in place of a call, so it ends where it would have ended without the interruption. Of
   * two for one plan the later counts. Plans with a number of steps that is not searched inform the estimate of
   * interactions from the start. Plans with groups that are no candidates are passed over.
   */
  readonly known?: readonly PlanCost[] | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Counts measurements; the total is a limit that the search may stay below. */
  readonly onProgress?: OnProgress | undefined;
  /** After each call of `measure`; awaited, so that it can be kept. */
  readonly onMeasured?: ((plan: Plan, cost: number) => void | Promise<void>) | undefined;
}

/** What plans cost: known already, or measured now. */
export class Ledger {
  calls = 0;
  readonly #set: CandidateSet;
  readonly #options: MeasuringOptions;
  readonly #known = new Map<string, RankedSelection>();
  readonly #limits: readonly number[];
  #done = 0;

  constructor(set: CandidateSet, options: MeasuringOptions, limits: readonly number[]) {
    this.#set = set;
    this.#options = options;
    this.#limits = limits;
    const read = selectionReader(set);
    for (const [i, { plan, cost }] of (options.known ?? []).entries()) {
      validatePlan(plan, { layers: set.layers });
      checkCost(cost, `known[${i}].cost`);
      const selection = read(plan);
      if (selection !== undefined) this.#known.set(selection.join(), { selection, cost });
    }
  }

  /** What was known from the start, in an order that does not depend on that of the options. */
  known(): RankedSelection[] {
    return [...this.#known.values()].sort((a, b) => compareSelections(a.selection, b.selection));
  }

  /** @throws PlanError `PLAN_PARAMETERS` where no finite number is measured; what the options throw */
  async cost(selection: Selection): Promise<number> {
    this.#options.signal?.throwIfAborted();
    const cost = this.#known.get(selection.join())?.cost ?? (await this.#measure(selection));
    this.#report(this.#done + 1);
    return cost;
  }

  async #measure(selection: Selection): Promise<number> {
    const plan = toPlan(this.#set, selection);
    const cost = await this.#options.measure(plan);
    this.calls++;
    if (!Number.isFinite(cost)) {
      const groups = plan.groups.map((group) => `[${group.layers.join(', ')}]`).join(' ');
      throw new PlanError('PLAN_PARAMETERS', 'a plan must cost a number', {
        path: 'measure',
        expected: 'a finite number',
        found: `${cost} for groups ${groups}`,
      });
    }
    await this.#options.onMeasured?.(plan, cost);
    return cost;
  }

  /** The search of the i-th number of steps is over, whether or not it used up its limit. */
  close(i: number): void {
    const done = this.#limits.slice(0, i + 1).reduce((sum, limit) => sum + limit, 0);
    if (done > this.#done) this.#report(done);
  }

  #report(done: number): void {
    this.#done = done;
    const total = this.#limits.reduce((sum, limit) => sum + limit, 0);
    this.#options.onProgress?.({ phase: 'searching plans', done, total, unit: 'measurements' });
  }
}

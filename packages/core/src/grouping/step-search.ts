import {
  type CandidateSet,
  compareSelections,
  type PairMatrix,
  type RankedSelection,
  type Selection,
  scoreSelection,
} from './candidates.js';
import type { Delays } from './delays.js';
import { boundedSearch } from './interacting.js';
import type { InteractionModel } from './interactions.js';
import type { Ledger } from './ledger.js';
import { neighbours } from './moves.js';
import { additiveSelections } from './optimal.js';

/** Plans of each kind that are looked at closely before one is measured. */
const SHORTLIST = 32;

/** Standard deviations below its estimate at which a plan must be no better than the best for the search to end. */
const STOP_AT = 2;

export interface StepSearchOptions {
  readonly saved: number;
  readonly budget: number;
  readonly nodes: number;
  /** Only plans that keep to this; one that saves so many steps does. */
  readonly delays?: Delays | undefined;
}

/** The search of one number of steps. */
export class StepSearch {
  readonly measured: RankedSelection[] = [];
  settled = false;
  proven = true;
  readonly #set: CandidateSet;
  readonly #model: InteractionModel;
  readonly #ledger: Ledger;
  readonly #options: StepSearchOptions;
  readonly #keys = new Set<string>();
  #best: RankedSelection | undefined;
  /** The neighbours of the best plan, kept until it changes. */
  #near: { readonly of: Selection; readonly plans: readonly Selection[] } | undefined;

  constructor(set: CandidateSet, model: InteractionModel, ledger: Ledger, options: StepSearchOptions) {
    this.#set = set;
    this.#model = model;
    this.#ledger = ledger;
    this.#options = options;
  }

  async run(seeds: readonly Selection[], isExhaustive: boolean): Promise<void> {
    const { budget } = this.#options;
    for (const selection of this.#first(isExhaustive)) await this.#measure(selection);
    for (const seed of seeds) await this.#measure(seed);
    while (this.measured.length < budget) {
      const next = this.#propose();
      if (next === undefined) {
        this.settled = true;
        return;
      }
      await this.#measure(next);
    }
  }

  /** All plans where all are to be measured, else the one with the least sum of costs. */
  #first(isExhaustive: boolean): Selection[] {
    const { saved, budget, nodes, delays } = this.#options;
    if (delays === undefined || isExhaustive) {
      return additiveSelections(this.#set, saved, isExhaustive ? budget : 1)[saved]!.map(
        ({ selection }) => selection,
      );
    }
    const none = new Float64Array(this.#set.all.length ** 2);
    const [least] = boundedSearch(this.#set, none, { saved, count: 1, nodes, delays }).best;
    return [least?.selection ?? delays.fastest(saved)];
  }

  async #measure(selection: Selection): Promise<void> {
    if (this.#options.delays?.allows(selection) === false) return;
    if (this.#keys.has(selection.join()) || this.measured.length >= this.#options.budget) return;
    const entry = { selection, cost: await this.#ledger.cost(selection) };
    this.#keys.add(selection.join());
    this.measured.push(entry);
    this.#best = this.#best === undefined ? entry : better(this.#best, entry);
    this.#model.add(selection, entry.cost);
  }

  /** The plan to measure next, or undefined where none promises an improvement. */
  #propose(): Selection | undefined {
    const pairs = this.#model.pairs();
    const best = this.#best!.selection;
    const threshold = scoreSelection(this.#set, best, pairs);
    const shortlist = new Map(
      [...this.#anywhere(pairs), ...this.#nearest(best, pairs)].map((one) => [one.selection.join(), one]),
    );
    let next: RankedSelection | undefined;
    for (const { selection, cost } of shortlist.values()) {
      const doubt = this.#model.uncertainty(selection, best);
      if (cost - STOP_AT * doubt >= threshold) continue;
      const entry = { selection, cost: cost - doubt };
      next = next === undefined ? entry : better(next, entry);
    }
    return next?.selection;
  }

  /** The best plans under the estimate that are not measured yet. */
  #anywhere(pairs: PairMatrix): RankedSelection[] {
    const { saved, nodes, delays } = this.#options;
    const isExcluded = (selection: Selection) => this.#keys.has(selection.join());
    const found = boundedSearch(this.#set, pairs, {
      saved,
      count: SHORTLIST,
      nodes,
      isExcluded,
      delays,
    });
    if (!found.proven) this.proven = false;
    return found.best;
  }

  /** The best under the estimate of the neighbours that are not measured yet. */
  #nearest(of: Selection, pairs: PairMatrix): RankedSelection[] {
    if (this.#near?.of !== of) this.#near = { of, plans: neighbours(this.#set, of) };
    return this.#near.plans
      .filter(
        (selection) => !this.#keys.has(selection.join()) && this.#options.delays?.allows(selection) !== false,
      )
      .map((selection) => ({ selection, cost: scoreSelection(this.#set, selection, pairs) }))
      .sort((a, b) => a.cost - b.cost || compareSelections(a.selection, b.selection))
      .slice(0, SHORTLIST);
  }
}

/** The one that costs less, then the one that goes first. */
export function better(a: RankedSelection, b: RankedSelection): RankedSelection {
  return (b.cost - a.cost || compareSelections(b.selection, a.selection)) < 0 ? b : a;
}

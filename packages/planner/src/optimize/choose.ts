import {
  type CandidateCost,
  effectiveBypass,
  type LatencyLimit,
  type OnProgress,
  type Plan,
  parsePlan,
  planSteps,
  reachableSteps,
  type SearchPoint,
  searchPlans,
  sequentialSteps,
} from '@cqil/core';
import { z } from 'zod';
import { type PlanCost, planCosts, type ReferenceStreams } from '../costs/index.js';
import type { ModelParts } from '../parts/index.js';
import { uniformProposals } from './baselines.js';
import type { WorkFolder } from './work-folder.js';

const LOG = 'plans.jsonl';
const planSchema = z.custom<Plan>((value) => {
  try {
    return parsePlan(value) !== undefined;
  } catch {
    return false;
  }
});
const kindsSchema = z.array(z.looseObject({ kind: z.string(), kl: z.number(), crossEntropy: z.number() }));
const measuredSchema = z.object({ plan: planSchema, kinds: kindsSchema });

/** A plan as it was measured as a whole on development text. */
export interface MeasuredPlan {
  readonly steps: number;
  readonly plan: Plan;
  /** Mean over the kinds of text of KL(original ‖ planned), nats a token. */
  readonly kl: number;
  /** Perplexity over the original's, geometric mean over the kinds, minus 1. */
  readonly excess: number;
}

/** Measures whole plans, each once, and remembers them in the work folder. */
export class PlanMeter {
  readonly #stored = new Map<string, MeasuredPlan>();
  readonly #asked = new Map<string, MeasuredPlan>();

  private constructor(
    readonly parts: ModelParts,
    readonly reference: () => Promise<ReferenceStreams>,
    readonly work: WorkFolder,
    readonly signal: AbortSignal | undefined,
  ) {}

  static async open(
    parts: ModelParts,
    reference: () => Promise<ReferenceStreams>,
    work: WorkFolder,
    signal: AbortSignal | undefined,
  ): Promise<PlanMeter> {
    const meter = new PlanMeter(parts, reference, work, signal);
    for (const { plan, kinds } of await work.lines(LOG, measuredSchema)) meter.#store(plan, kinds);
    return meter;
  }

  /**
   * What this meter was asked for. What a stopped run measured further on is not among it: a search that knew of that
   * beforehand would go another way than it did then.
   */
  get known(): MeasuredPlan[] {
    return [...this.#asked.values()];
  }

  async measure(plans: readonly Plan[]): Promise<MeasuredPlan[]> {
    const missing = plans.filter((plan) => !this.#stored.has(keyOf(plan)));
    if (missing.length > 0) {
      const options = this.signal === undefined ? {} : { signal: this.signal };
      const costs = await planCosts(this.parts, missing, await this.reference(), options);
      for (const [i, { kinds }] of costs.entries()) {
        await this.work.append(LOG, { plan: missing[i], kinds });
        this.#store(missing[i] as Plan, kinds);
      }
    }
    return plans.map((plan) => {
      const measured = this.#stored.get(keyOf(plan)) as MeasuredPlan;
      this.#asked.set(keyOf(plan), measured);
      return measured;
    });
  }

  #store(plan: Plan, kinds: readonly Pick<PlanCost['kinds'][number], 'kl' | 'crossEntropy'>[]): void {
    const mean = (of: (kind: (typeof kinds)[number]) => number) =>
      kinds.reduce((sum, kind) => sum + of(kind), 0) / kinds.length;
    const { version, layers, groups } = plan;
    this.#stored.set(keyOf(plan), {
      steps: sequentialSteps(plan),
      // Whoever proposed it first.
      plan: { version, layers, groups },
      kl: mean(({ kl }) => kl),
      excess: Math.expm1(mean(({ crossEntropy }) => crossEntropy)),
    });
  }
}

function keyOf(plan: Plan): string {
  const bypass = new Map(plan.groups.map((group) => [group.layers[0], effectiveBypass(group)]));
  return planSteps(plan)
    .filter((layers) => layers.length > 1)
    .map((layers) => `${layers.join()}/${bypass.get(layers[0])}`)
    .join(' ');
}

/** SmolLM2-135M: what the defaults are made for. */
const USUAL = { layers: 30, hidden: 576 };
const MOST_MEASURED = 2000;

/**
 * How many plans are measured where nobody says: as much work as `usual` are for a model of 30 layers and a width of
 * 576, so that of a small model all are measured, and `usual` at least.
 */
export function defaultBudget(usual: number, layers: number, hidden: number): number {
  const times = (USUAL.layers * USUAL.hidden ** 2) / (layers * hidden ** 2);
  return Math.min(MOST_MEASURED, Math.max(usual, Math.floor(usual * times)));
}

/** Of plans for numbers of steps that nobody asked for, the front needs to know but about where they lie. */
const FRONT_SHARE = 1 / 8;
const FRONT_POINTS = 6;

export interface PlanSearchOptions {
  /** Plans measured for a number of steps that is wanted. */
  readonly budget: number;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: OnProgress | undefined;
}

/** Searches the best plan, measured as a whole, for one number of steps after the other. */
export class PlanSearch {
  readonly #found = new Map<number, MeasuredPlan>();

  constructor(
    readonly layers: number,
    readonly candidates: readonly CandidateCost[],
    readonly meter: PlanMeter,
    readonly options: PlanSearchOptions,
  ) {}

  /** Numbers of steps that can be reached with groups, most first. */
  get steps(): number[] {
    return reachableSteps(this).filter((n) => n < this.layers);
  }

  /** The best plans found, most steps first; none that another beats with fewer. */
  get front(): MeasuredPlan[] {
    const all = [...this.#found.values()].sort((a, b) => b.steps - a.steps);
    return all.filter((point, i) => all.slice(i + 1).every((other) => other.kl > point.kl));
  }

  /** A few numbers of steps down to half the layers, each searched less thoroughly. */
  async overview(): Promise<void> {
    const steps = this.steps.filter((n) => n >= this.layers / 2);
    const stride = Math.ceil(steps.length / FRONT_POINTS);
    const some = steps.filter((_, i) => i % stride === 0);
    await this.#search(some, Math.max(3, Math.floor(FRONT_SHARE * this.options.budget)), []);
  }

  /** The best plan for a number of steps, as well as the budget finds it. */
  async best(steps: number): Promise<MeasuredPlan> {
    const { paper, parallel } = uniformProposals(this.layers, steps, this.candidates);
    const seeds = [...paper, ...parallel];
    await this.meter.measure(seeds);
    // What others would plan is measured to compare with, and takes nothing from the search.
    await this.#search([steps], this.options.budget + seeds.length, seeds);
    return this.#found.get(steps) as MeasuredPlan;
  }

  /**
   * The plan that costs least of those that keep to a predicted latency, as well as the budget finds it.
   *
   * Fewer steps cost more, as a rule, but few plans of the most steps may be fast enough: the two largest numbers are
   * searched, and further ones as long as all plans of one were measured.
   *
   * @param steps numbers of steps that such plans have, descending
   */
  async bestWithin(steps: readonly number[], latency: LatencyLimit<CandidateCost>): Promise<MeasuredPlan> {
    let best: MeasuredPlan | undefined;
    for (const [i, n] of steps.entries()) {
      const { paper, parallel } = uniformProposals(this.layers, n, this.candidates);
      const seeds = [...paper, ...parallel];
      const [point] = await this.#search([n], this.options.budget + seeds.length, seeds, latency);
      const [measured] = await this.meter.measure([(point as SearchPoint).plan]);
      if (best === undefined || (measured as MeasuredPlan).kl < best.kl) best = measured;
      if (i > 0 && point?.exhaustive !== true) break;
    }
    return best as MeasuredPlan;
  }

  /** @throws PlanError; what measuring throws; the signal's reason */
  async #search(
    steps: readonly number[],
    budget: number,
    seeds: readonly Plan[],
    latency?: LatencyLimit<CandidateCost>,
  ): Promise<readonly SearchPoint[]> {
    if (steps.length === 0) return [];
    const { signal, onProgress } = this.options;
    const { points } = await searchPlans({
      layers: this.layers,
      candidates: this.candidates,
      cost: ({ kl }) => kl,
      steps,
      budget,
      seeds,
      known: this.meter.known.map(({ plan, kl }) => ({ plan, cost: kl })),
      measure: async (plan) => ((await this.meter.measure([plan]))[0] as MeasuredPlan).kl,
      ...(latency === undefined ? {} : { latency }),
      ...(signal === undefined ? {} : { signal }),
      ...(onProgress === undefined ? {} : { onProgress }),
    });
    for (const point of await this.meter.measure(points.map(({ plan }) => plan))) {
      // A limit leaves better plans out.
      const before = latency === undefined ? undefined : this.#found.get(point.steps);
      if (before === undefined || point.kl < before.kl) this.#found.set(point.steps, point);
    }
    return points;
  }
}

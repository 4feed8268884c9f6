import {
  type CandidateCost,
  effectiveBypass,
  type OnProgress,
  type Plan,
  type PlanTarget,
  planSteps,
  reachableSteps,
  searchPlans,
  sequentialSteps,
  stepsForTarget,
} from '@cqil/core';
import { z } from 'zod';
import { type PlanCost, planCosts, type ReferenceStreams } from '../costs/index.js';
import type { ModelParts } from '../parts/index.js';
import { uniformProposals } from './baselines.js';
import type { WorkFolder } from './work-folder.js';

const planSchema = z.custom<Plan>((value) => typeof value === 'object' && value !== null);
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

/** Of plans for numbers of steps that nobody asked for, the front needs to know but about where they lie. */
const FRONT_BUDGET = 3;
const FRONT_POINTS = 6;

interface ChooseOptions {
  readonly target: PlanTarget;
  readonly budget: number;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: OnProgress | undefined;
}

/** Measures whole plans, each once, and remembers them in the work folder. */
export class PlanMeter {
  readonly #known = new Map<string, MeasuredPlan>();

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
    for (const { plan, kinds } of await work.lines('plans.jsonl', measuredSchema)) meter.#keep(plan, kinds);
    return meter;
  }

  get known(): MeasuredPlan[] {
    return [...this.#known.values()];
  }

  async measure(plans: readonly Plan[]): Promise<MeasuredPlan[]> {
    const missing = plans.filter((plan) => !this.#known.has(keyOf(plan)));
    if (missing.length > 0) {
      const options = this.signal === undefined ? {} : { signal: this.signal };
      const costs = await planCosts(this.parts, missing, await this.reference(), options);
      for (const [i, { kinds }] of costs.entries()) {
        await this.work.append('plans.jsonl', { plan: missing[i], kinds });
        this.#keep(missing[i] as Plan, kinds);
      }
    }
    return plans.map((plan) => this.#known.get(keyOf(plan)) as MeasuredPlan);
  }

  #keep(plan: Plan, kinds: readonly Pick<PlanCost['kinds'][number], 'kl' | 'crossEntropy'>[]): void {
    const mean = (of: (kind: (typeof kinds)[number]) => number) =>
      kinds.reduce((sum, kind) => sum + of(kind), 0) / kinds.length;
    this.#known.set(keyOf(plan), {
      steps: sequentialSteps(plan),
      plan,
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

/**
 * The best plan found for the number of steps that a target asks for, measured as a whole, and, less thoroughly, for
 * others: the front from which a user can choose.
 *
 * @throws UsageError `TARGET_UNREACHABLE`; PlanError; what measuring throws; the signal's reason
 */
export async function chooseFront(
  layers: number,
  candidates: readonly CandidateCost[],
  meter: PlanMeter,
  options: ChooseOptions,
): Promise<{ readonly front: readonly MeasuredPlan[]; readonly wanted: number | undefined }> {
  const { target, budget, signal, onProgress } = options;
  const wanted = stepsForTarget(target, { layers, candidates });
  const search = async (steps: readonly number[], most: number, seeds: readonly Plan[]) => {
    const { points } = await searchPlans({
      layers,
      candidates,
      cost: ({ kl }) => kl,
      steps,
      budget: most,
      seeds,
      known: meter.known.map(({ plan, kl }) => ({ plan, cost: kl })),
      measure: async (plan) => ((await meter.measure([plan]))[0] as MeasuredPlan).kl,
      ...(signal === undefined ? {} : { signal }),
      ...(onProgress === undefined ? {} : { onProgress }),
    });
    return points;
  };
  const others = frontSteps(layers, candidates, wanted);
  const points = [...(await search(others, FRONT_BUDGET, []))];
  if (wanted !== undefined) {
    const { paper, parallel } = uniformProposals(layers, wanted, candidates);
    const seeds = [...paper, ...parallel];
    await meter.measure(seeds);
    points.push(...(await search([wanted], budget, seeds)));
  }
  const measured = await meter.measure(points.filter(({ dominated }) => !dominated).map(({ plan }) => plan));
  return { front: measured.toSorted((a, b) => b.steps - a.steps), wanted };
}

/** A few numbers of steps down to half the layers; all of them for a target that only measuring can answer. */
function frontSteps(
  layers: number,
  candidates: readonly CandidateCost[],
  wanted: number | undefined,
): number[] {
  const steps = reachableSteps({ layers, candidates }).filter((n) => n < layers && n >= layers / 2);
  const stride = wanted === undefined ? 1 : Math.ceil(steps.length / FRONT_POINTS);
  return steps.filter((n, i) => n !== wanted && i % stride === 1 % stride);
}

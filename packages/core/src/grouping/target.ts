import { PlanError, UsageError } from '../errors.js';
import { MAX_LAYERS } from '../plan/schema.js';
import { candidateSet } from './candidates.js';
import type { CandidateGroup } from './costs.js';
import { reachableSteps } from './counting.js';
import { Delays, type LatencyLimit } from './delays.js';
import { checkWhole } from './uniform.js';

/** What a plan shall reach. */
export type PlanTarget =
  /** At most so many sequential steps. */
  | { readonly maxSteps: number }
  /** So many times as fast: by a prediction where there is one, else layers over sequential steps. At least 1. */
  | { readonly targetSpeedup: number }
  /** At most so much excess perplexity, as a share of the original's: 0.05 is 5 %. */
  | { readonly maxQualityLoss: number };

/** A measured plan, as far as a target looks at it. */
export interface TargetPoint {
  readonly steps: number;
  /** Perplexity over the original's, less 1, as measured; without it a point meets no `maxQualityLoss`. */
  readonly excess?: number | undefined;
}

/**
 * The number of sequential steps to search plans for: the most that the candidates can reach and the target allows,
 * since fewer cost more. `floor(layers / targetSpeedup)` steps are allowed by a speed-up.
 *
 * @returns undefined for `maxQualityLoss`, which only measured plans can answer: search all numbers of steps, then
 * `pointForTarget`.
 * @throws UsageError `TARGET_UNREACHABLE` with the nearest that can be reached; PlanError `PLAN_PARAMETERS`
 */
export function stepsForTarget(
  target: PlanTarget,
  model: { readonly layers: number; readonly candidates: readonly CandidateGroup[] },
): number | undefined {
  checkWhole('layers', model.layers, 1, MAX_LAYERS);
  checkTarget(target);
  if ('maxQualityLoss' in target) return undefined;
  const reachable = reachableSteps(model);
  const allowed = allowedSteps(target, model.layers);
  return (
    reachable.find((steps) => steps <= allowed) ?? unreachable(target, nearestSteps(reachable, model.layers))
  );
}

/**
 * Of measured plans, such as the front of `searchPlans` with excess perplexity, the one that meets a target best:
 * for a loss of quality the fewest steps within it, otherwise the most steps that are few enough.
 *
 * The original model, with as many steps as layers, meets no loss of quality: it is what the plan is to improve on.
 *
 * @param layers number of layers of the model
 * @throws UsageError `TARGET_UNREACHABLE` with the nearest that can be reached; PlanError `PLAN_PARAMETERS`
 */
export function pointForTarget<P extends TargetPoint>(
  points: readonly P[],
  target: PlanTarget,
  layers: number,
): P {
  checkWhole('layers', layers, 1, MAX_LAYERS);
  checkTarget(target);
  for (const [i, { steps, excess }] of points.entries()) {
    checkWhole(`points[${i}].steps`, steps, 1, layers);
    if (excess !== undefined) checkNumber(`points[${i}].excess`, excess, Number.NEGATIVE_INFINITY);
  }
  const fewestFirst = points.toSorted((a, b) => a.steps - b.steps);
  if ('maxQualityLoss' in target) {
    const measured = fewestFirst.filter(({ steps, excess }) => steps < layers && excess !== undefined);
    return (
      measured.find(({ excess }) => excess! <= target.maxQualityLoss) ??
      unreachable(target, nearestLoss(measured))
    );
  }
  const allowed = allowedSteps(target, layers);
  return (
    fewestFirst.findLast(({ steps }) => steps <= allowed) ??
    unreachable(target, nearestSteps(fewestFirst.map((point) => point.steps).reverse(), layers))
  );
}

/** What is predicted of groups: see `LatencyLimit`, changes as shares of the unplanned model's latency. */
export type LatencyChange<C extends CandidateGroup> = LatencyLimit<C>['change'];

/**
 * What a speed-up asks of a plan's latency.
 *
 * @throws PlanError `PLAN_PARAMETERS`
 */
export function latencyLimit<C extends CandidateGroup>(
  { targetSpeedup }: { readonly targetSpeedup: number },
  change: LatencyChange<C>,
): LatencyLimit<C> {
  checkTarget({ targetSpeedup });
  return { change, most: 1 / targetSpeedup - 1 };
}

/**
 * The numbers of sequential steps, descending, that plans have that are predicted to be so many times as fast: the first is
 * what costs least, as a rule.
 *
 * @throws UsageError `TARGET_UNREACHABLE` with the fastest there is; PlanError `PLAN_PARAMETERS`
 */
export function stepsForLatency<C extends CandidateGroup>(
  target: { readonly targetSpeedup: number },
  model: { readonly layers: number; readonly candidates: readonly C[] },
  change: LatencyChange<C>,
): number[] {
  const { layers, candidates } = model;
  const set = candidateSet(layers, candidates, () => 0);
  const delays = Delays.of(set, candidates, latencyLimit(target, change));
  const reachable = reachableSteps(model);
  const found = reachable.filter((steps) => steps < layers && delays.reaches(0, 0, layers - steps));
  if (found.length > 0) return found;
  const best = reachable.reduce((a, b) => (delays.least(layers - b) < delays.least(layers - a) ? b : a));
  const speedup = 1 / (1 + delays.least(layers - best));
  throw new UsageError('TARGET_UNREACHABLE', 'No plan is predicted to be so fast.', {
    expected: `${target.targetSpeedup} times as fast, predicted`,
    found:
      best === layers
        ? 'no plan that is faster than the model as it is'
        : `${speedup.toFixed(2)} times as fast at the most, with ${best} steps`,
    hint: 'Branches of a group gain nothing on one device: write groups as one layer (`--form wide`), or name devices for them (`--devices cpu:0,cpu:1`). Else ask for less.',
  });
}

type StepsTarget = Exclude<PlanTarget, { readonly maxQualityLoss: number }>;

function allowedSteps(target: StepsTarget, layers: number): number {
  if ('maxSteps' in target) return target.maxSteps;
  // 1.1 * 20 is over 22 in floating point; a speed-up as people write it is to be met by the steps they mean.
  return Math.floor(layers / target.targetSpeedup + 1e-9);
}

/** @param steps descending */
function nearestSteps(steps: readonly number[], layers: number): string {
  const fewest = steps.at(-1);
  return fewest === undefined
    ? 'no plan'
    : `${fewest} steps at the fewest, ${layers} / ${fewest} = ${(layers / fewest).toFixed(2)} times as fast`;
}

function nearestLoss(points: readonly TargetPoint[]): string {
  if (points.length === 0) return 'no plan whose excess perplexity was measured';
  const least = points.reduce((a, b) => (b.excess! <= a.excess! ? b : a));
  return `${(100 * least.excess!).toPrecision(3)} % excess perplexity at the least, with ${least.steps} steps`;
}

function unreachable(target: PlanTarget, nearest: string): never {
  const [expected, hint] =
    'maxSteps' in target
      ? [
          `at most ${target.maxSteps} sequential steps`,
          'Allow more steps, or give more or larger candidate groups.',
        ]
      : 'targetSpeedup' in target
        ? [`${target.targetSpeedup} times as fast`, 'Ask for less, or give more or larger candidate groups.']
        : [
            `a plan with at most ${(100 * target.maxQualityLoss).toPrecision(3)} % excess perplexity`,
            'Allow a larger loss.',
          ];
  throw new UsageError('TARGET_UNREACHABLE', 'No plan reaches this target.', {
    expected,
    found: nearest,
    hint,
  });
}

function checkTarget(target: PlanTarget): void {
  if ('maxSteps' in target) checkWhole('maxSteps', target.maxSteps, 1, MAX_LAYERS);
  else if ('targetSpeedup' in target) checkNumber('targetSpeedup', target.targetSpeedup, 1);
  else checkNumber('maxQualityLoss', target.maxQualityLoss, 0);
}

function checkNumber(path: string, value: number, least: number): void {
  if (Number.isFinite(value) && value >= least) return;
  throw new PlanError('PLAN_PARAMETERS', 'not a value this can be', {
    path,
    expected: least === Number.NEGATIVE_INFINITY ? 'a finite number' : `a finite number, ${least} or more`,
    found: String(value),
  });
}

import { type OnProgress, UsageError } from '@cqil/core';
import type { SessionOptions } from '@cqil/runtime-gpu';
import { analyze } from '../anatomy/index.js';
import type { TextSet } from '../evaluate/index.js';
import type { Model } from '../onnx/index.js';
import { applyPolicy, promisedThreshold, type Segment } from './policy.js';
import { EXIT_SCORES, type ExitCosts, type ExitScore, ExitStates } from './states.js';

export interface ExitsOptions {
  /** Text that thresholds are chosen on, and other text that they are judged by. */
  readonly development: Pick<TextSet, 'kinds'>;
  readonly evaluation: Pick<TextSet, 'kinds'>;
  /** After how many steps a token may leave; up to eight, evenly spread, when absent. */
  readonly borders?: readonly number[];
  /** Least share of tokens that are the whole model's; 0.99, 0.95 and 0.9 when absent. */
  readonly agreements?: readonly number[];
  /** Probability with which a promise holds; 0.95 when absent. */
  readonly confidence?: number;
  readonly session?: SessionOptions;
  readonly signal?: AbortSignal;
  readonly onProgress?: OnProgress;
}

/** What leaving early by one measure of confidence gives, at best, under one promise. */
export interface ExitsResult {
  readonly score: ExitScore;
  /** What was promised. */
  readonly promised: number;
  /** The borders that may be left at, as numbers of steps: the choice that reads the fewest weights on development text. */
  readonly borders: readonly number[];
  /** A token leaves where its confidence is at least this; `null` where no threshold keeps the promise. */
  readonly threshold: number | null;
  /** On evaluation text: share of tokens that are the whole model's. */
  readonly agreement: number;
  /** On evaluation text: share of tokens that leave at each of `borders`, and of those that leave at none. */
  readonly exits: readonly number[];
  /** On evaluation text: weights read a token, over those that the whole model reads; below 1 is faster. */
  readonly cost: number;
}

export interface ExitsReport {
  readonly steps: number;
  /** Borders that were measured. */
  readonly borders: readonly number[];
  /** Of all tokens of the evaluation text: share that would be the whole model's, by border. */
  readonly agreement: readonly number[];
  readonly costs: ExitCosts;
  readonly tokens: { readonly development: number; readonly evaluation: number };
  readonly results: readonly ExitsResult[];
}

const MOST_BORDERS = 8;
const AGREEMENTS = [0.99, 0.95, 0.9] as const;
/** Thresholds are tried at the quantiles of what was seen. */
const QUANTILES = 100;

/**
 * Whether a decoder would answer sooner if tokens left the stack early: which share of the tokens is decided at a border,
 * how surely that can be told there, and what it saves once the head that must be asked and the keys and values
 * that the skipped layers still need are paid for (state propagation, CALM, arXiv 2207.07061).
 *
 * Thresholds are chosen on development text such that the promised agreement holds with the given confidence, for segments of
 * tokens taken as independent, and judged on evaluation text. States of earlier tokens are the whole model's, so
 * what an exit does to later tokens is not in the numbers: they are the best that can be hoped for.
 *
 * Costs are weights read a token, which is what a token's time on one device goes with.
 *
 * @throws UsageError `EXITS_OPTIONS`; AnatomyError; what `openVariant` throws; the signal's reason
 */
export async function measureExits(model: Model, options: ExitsOptions): Promise<ExitsReport> {
  const anatomy = analyze(model);
  const steps = anatomy.layers.length;
  const borders = options.borders ?? spread(steps);
  const { agreements = AGREEMENTS, confidence = 0.95 } = options;
  check(borders, agreements, confidence, steps);
  await using states = await ExitStates.open(model, anatomy, borders, options.session);
  const development = await gather(states, options.development, 'choosing thresholds', options);
  const evaluation = await gather(states, options.evaluation, 'judging them', options);
  const all = borders.map((_, i) => i);
  const choices = [...all.map((border) => [border]), all];
  const results = EXIT_SCORES.flatMap((score) =>
    agreements.map((promised): ExitsResult => {
      const thresholds = quantiles(development[score], all);
      const cost = (segments: readonly Segment[], chosen: readonly number[], threshold: number) =>
        weightsRead(
          applyPolicy(segments, chosen, threshold).exits,
          chosen.map((i) => borders[i]!),
          { steps, costs: states.costs, asked: score === 'softmax' },
        );
      let best: { chosen: readonly number[]; threshold: number; cost: number } | undefined;
      for (const chosen of choices) {
        const threshold = promisedThreshold(development[score], chosen, thresholds, {
          agreement: promised,
          confidence,
        });
        if (threshold === undefined) continue;
        const found = cost(development[score], chosen, threshold);
        if (best === undefined || found < best.cost) best = { chosen, threshold, cost: found };
      }
      if (best === undefined)
        return { score, promised, borders: [], threshold: null, agreement: 1, exits: [1], cost: 1 };
      const { agreement, exits } = applyPolicy(evaluation[score], best.chosen, best.threshold);
      return {
        score,
        promised,
        borders: best.chosen.map((i) => borders[i]!),
        threshold: best.threshold,
        agreement,
        exits,
        cost: cost(evaluation[score], best.chosen, best.threshold),
      };
    }),
  );
  const everyToken = (border: number) =>
    applyPolicy(evaluation.softmax, [border], Number.NEGATIVE_INFINITY).agreement;
  const count = (segments: readonly Segment[]) =>
    segments.reduce((sum, { agrees }) => sum + (agrees[0]?.length ?? 0), 0);
  return {
    steps,
    borders,
    agreement: all.map(everyToken),
    costs: states.costs,
    tokens: { development: count(development.softmax), evaluation: count(evaluation.softmax) },
    results,
  };
}

/**
 * Weights read a token over those of the whole model.
 *
 * @param exits shares of tokens by border, and those that go through
 * @param asked whether the head is asked at every border that a token comes by (its answer is the exit's, too)
 */
export function weightsRead(
  exits: readonly number[],
  borders: readonly number[],
  { steps, costs, asked }: { readonly steps: number; readonly costs: ExitCosts; readonly asked: boolean },
): number {
  const { layer, keyValue, head } = costs;
  const whole = steps * layer + head;
  let sum = 0;
  for (const [i, share] of exits.entries()) {
    const run = borders[i] ?? steps;
    const heads = asked ? Math.min(i + 1, borders.length) + (i === borders.length ? 1 : 0) : 1;
    sum += share * (run * layer + (steps - run) * keyValue + heads * head);
  }
  return sum / whole;
}

async function gather(
  states: ExitStates,
  { kinds }: Pick<TextSet, 'kinds'>,
  phase: string,
  { signal, onProgress }: ExitsOptions,
): Promise<Record<ExitScore, Segment[]>> {
  const windows = kinds.flatMap((kind) => kind.windows);
  const gathered: Record<ExitScore, Segment[]> = { softmax: [], saturation: [] };
  for (const [done, ids] of windows.entries()) {
    signal?.throwIfAborted();
    onProgress?.({ phase, done, total: windows.length, unit: 'windows' });
    const found = await states.segments(ids);
    for (const score of EXIT_SCORES) gathered[score].push(...found[score]);
  }
  onProgress?.({ phase, done: windows.length, total: windows.length, unit: 'windows' });
  return gathered;
}

/** Descending. */
function quantiles(segments: readonly Segment[], borders: readonly number[]): number[] {
  const values = Float32Array.from(
    segments.flatMap(({ scores }) => borders.flatMap((border) => [...scores[border]!])),
  ).sort();
  const at = (i: number) => values[Math.min(values.length - 1, Math.floor((i / QUANTILES) * values.length))]!;
  const all = Array.from({ length: QUANTILES + 1 }, (_, i) => at(QUANTILES - i));
  return [...new Set(all)];
}

function spread(steps: number): number[] {
  const count = Math.min(MOST_BORDERS, steps - 1);
  return [...new Set(Array.from({ length: count }, (_, i) => Math.round(((i + 1) * steps) / (count + 1))))];
}

function check(
  borders: readonly number[],
  agreements: readonly number[],
  confidence: number,
  steps: number,
): void {
  const refuse = (name: string, expected: string, found: unknown) => {
    throw new UsageError('EXITS_OPTIONS', `The option "${name}" makes no sense.`, {
      expected,
      found: String(found),
    });
  };
  const ascending = borders.every((border, i) => border > (borders[i - 1] ?? 0) && Number.isInteger(border));
  if (borders.length === 0 || !ascending || borders.at(-1)! >= steps)
    refuse('borders', `whole numbers from 1 to ${steps - 1}, ascending`, borders.join(', '));
  const share = (value: number) => value > 0 && value < 1;
  if (agreements.length === 0 || !agreements.every(share))
    refuse('agreements', 'numbers between 0 and 1', agreements.join(', '));
  if (!share(confidence)) refuse('confidence', 'a number between 0 and 1', confidence);
}

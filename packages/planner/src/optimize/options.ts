import { createHash } from 'node:crypto';
import type { Bypass, GroupForm, OnProgress, PlanTarget, RelativeLatency } from '@cqil/core';
import type { SessionOptions } from '@cqil/runtime-gpu';
import { type CostsResult, formatCosts } from '../costs/index.js';
import type { WideOptions } from '../rewrite/index.js';

/** Which rows besides the original and ours the report's table has, at the same number of steps. */
export type BaselineChoice =
  /** None. */
  | 'none'
  /** Layers skipped in three ways, the best uniform plan of the paper, Layer Parallelism. */
  | 'plain'
  /** The same, and each with the same recovery as ours. */
  | 'recovered';

/**
 * How much is measured where no option says so: `full` for a result to keep, `quick` for a first look, in some minutes
 * for a small model.
 */
export type Effort = 'full' | 'quick';

/** What predicts how fast plans are. */
export interface PredictedLatency extends RelativeLatency {
  /** What it knows, for people: the profile's name and the devices. */
  readonly described: string;
  /** The same for the same predictions, different for others: a stopped run may go on only with the same. */
  readonly sha256: string;
}

export interface OptimizeOptions {
  readonly target: PlanTarget;
  /** Decides the defaults of all numbers below; they are given for `full`, which is taken when absent. */
  readonly effort?: Effort;
  /**
   * What to measure and fit on, by kinds (`kind=path`, `path`, `npm:<package>`, `self`); see `openTextSets`.
   * `['self']` when absent: text that the model writes itself.
   */
  readonly texts?: readonly string[];
  /** Text to judge by. Without it a part of every text is put aside for that. */
  readonly evaluationTexts?: readonly string[];
  /** Further text to judge by, reported beside the rest and no part of any mean; only with `evaluationTexts`. */
  readonly besideTexts?: readonly string[];
  /** Tokens to fit on, to choose by, and to judge by; 98,304, 12,288 and 24,576 when absent. */
  readonly tokens?: {
    readonly calibration?: number;
    readonly development?: number;
    readonly evaluation?: number;
  };
  /** Tokens of calibration text that every candidate group is measured on; 4,096 when absent. */
  readonly costTokens?: number;
  /**
   * Costs of this model's groups that were measured before, such as `cqil.costs.json` of another run's folder: they are
   * not measured again.
   */
  readonly costs?: CostsResult;
  /** Tokens of development text that whole plans are measured on; 6,144 when absent. */
  readonly searchTokens?: number;
  /** Tokens of a window; 512 when absent. */
  readonly window?: number;
  /** Sizes of the groups that a plan may have; 2, 3 and 4 when absent. */
  readonly groupSizes?: readonly number[];
  /** Bypass distances that groups may have; 0, 1 and `full` when absent. */
  readonly bypasses?: readonly Bypass[];
  /**
   * How the groups are written; `branches` when absent. `wide` restricts the search to groups that are one layer: bypass
   * `'full'`, members that are alike but for their weights; `packed` to groups that have something to be made one. All that
   * is measured and repaired is so in branches, whose mathematics is the same; the model that is written and judged has
   * the merged matrices.
   */
  readonly form?: GroupForm;
  /** With the forms `wide` and `packed`: how matrices are stored, and the form of the caches. */
  readonly wide?: Pick<WideOptions, 'storage' | 'kv'>;
  /** Reads a target speed-up as predicted latency, of plans in the form that is written; without it layers over steps. */
  readonly latency?: PredictedLatency;
  /** Whole plans measured for the number of steps that is wanted; 24 when absent, more for models that are small. */
  readonly budget?: number;
  /** `false` leaves the matrices as they are; `true` when absent. */
  readonly recover?: boolean;
  /**
   * With recovery and a number of steps as target: whether some of the best plans are repaired on a part of the text
   * before one is chosen, since what costs least is not always what repairs best; `true` when absent.
   */
  readonly trials?: boolean;
  /** `plain` when absent. */
  readonly baselines?: BaselineChoice;
  /** `false` leaves out items and generation; `true` when absent. */
  readonly samples?: boolean;
  /** For what the model writes itself; 1 when absent. */
  readonly seed?: number;
  /** Where packages and relative paths of texts are looked up; the working directory when absent. */
  readonly cwd?: string;
  /** Replaces what is in the output folder, if that is a planned model. */
  readonly force?: boolean;
  /** Starts anew where the work folder holds other work. */
  readonly restart?: boolean;
  /** The command to name in the report. */
  readonly command?: string;
  readonly session?: SessionOptions;
  readonly signal?: AbortSignal;
  readonly onProgress?: OnProgress;
}

export type Settings = ReturnType<typeof settingsOf>;

const DEFAULTS = {
  full: {
    tokens: { calibration: 98_304, development: 12_288, evaluation: 24_576 },
    costTokens: 4096,
    searchTokens: 6144,
    groupSizes: [2, 3, 4],
    budget: 24,
    trials: true,
  },
  quick: {
    tokens: { calibration: 24_576, development: 4096, evaluation: 6144 },
    costTokens: 1536,
    searchTokens: 1536,
    groupSizes: [2],
    budget: 8,
    trials: false,
  },
} as const;

/** What decides the result, as plain JSON: a stopped run may go on only with the same. */
export function settingsOf(options: OptimizeOptions) {
  const defaults = DEFAULTS[options.effort ?? 'full'];
  return {
    target: options.target,
    ...(options.latency === undefined || !('targetSpeedup' in options.target)
      ? {}
      : { latency: options.latency.sha256 }),
    texts: [...(options.texts ?? ['self'])],
    evaluationTexts: options.evaluationTexts === undefined ? null : [...options.evaluationTexts],
    besideTexts: [...(options.besideTexts ?? [])],
    tokens: {
      calibration: options.tokens?.calibration ?? defaults.tokens.calibration,
      development: options.tokens?.development ?? defaults.tokens.development,
      evaluation: options.tokens?.evaluation ?? defaults.tokens.evaluation,
    },
    costTokens: options.costTokens ?? defaults.costTokens,
    costs:
      options.costs === undefined
        ? null
        : createHash('sha256').update(formatCosts(options.costs)).digest('hex'),
    searchTokens: options.searchTokens ?? defaults.searchTokens,
    window: options.window ?? 512,
    groupSizes: [...(options.groupSizes ?? defaults.groupSizes)],
    bypasses:
      options.form === 'wide' ? (['full'] as const) : [...(options.bypasses ?? ([0, 1, 'full'] as const))],
    ...(options.form === undefined || options.form === 'branches'
      ? {}
      : { form: options.form, wide: { ...options.wide } }),
    budget: options.budget ?? defaults.budget,
    recover: options.recover ?? true,
    trials: options.trials ?? defaults.trials,
    baselines: options.baselines ?? 'plain',
    samples: options.samples ?? true,
    seed: options.seed ?? 1,
  };
}

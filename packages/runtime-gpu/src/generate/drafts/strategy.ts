import type { StepModel } from '../../decoder/step-model.js';
import { seededRandom } from '../random.js';
import type { SamplingOptions } from '../sampling.js';
import { SequenceReader } from '../sequence-reader.js';
import type { TokenHistory } from '../token-history.js';
import { AsynchronousDrafter } from './asynchronous-drafter.js';
import { Contest } from './contest.js';
import { ModelDrafter } from './model-drafter.js';
import type { SpeculateOptions } from './options.js';
import { Pacer } from './pacer.js';
import { PassTimes } from './pass-times.js';
import { PromptLookup } from './prompt-lookup.js';
import type { DraftSource, Pace } from './types.js';

/** What drafts need to know of the generation. */
export interface SpeculationContext {
  readonly model: StepModel;
  readonly promptIds: readonly number[];
  readonly sampling: SamplingOptions;
  /** Whether the caller asked for a seed. */
  readonly seed: number | undefined;
  readonly history: TokenHistory;
  readonly ends: ReadonlySet<number>;
  readonly capacity: number;
  readonly signal: AbortSignal | undefined;
}

/** Where drafts come from, and how many are asked for. */
export interface Strategy {
  readonly source: DraftSource;
  readonly maxDraft: number;
  /** Absent: always as many as there may be. */
  readonly pace?: Pace;
  /** What a pass takes, for the pace. `began`: what `clock` said when it began. */
  readonly clock: () => number;
  readonly time: (began: number, drafted: number) => number;
}

/** Defaults, the best of those tried on answers of a small model that copy, and that do not. */
const MAX_DRAFT = { prompt: 16, model: 8 };
const NGRAM = 3;
/** In plain steps; for where the clock must not decide: a token more in a pass, a token of a drafter. */
const NOMINAL = { row: 0.1, draft: 0.4 };

export function strategyFor(options: SpeculateOptions, context: SpeculationContext): Strategy {
  const { drafter, asynchronous = false } = options;
  if (drafter === 'prompt') return lookingUp(options, context);
  return asynchronous ? draftingBeside(drafter, options, context) : draftingBefore(drafter, options, context);
}

function lookingUp(options: SpeculateOptions, { model }: SpeculationContext): Strategy {
  const { maxDraft = MAX_DRAFT.prompt, ngram = NGRAM, adapt = true } = options;
  const times = timed(options, () => passTimes.of(model, model));
  return {
    source: new PromptLookup(ngram),
    maxDraft,
    ...(adapt ? { pace: new Pacer(maxDraft, times) } : {}),
    ...byClock(options),
  };
}

/** The drafter has its turn before each pass. */
function draftingBefore(
  drafter: StepModel,
  options: SpeculateOptions,
  context: SpeculationContext,
): Strategy {
  const { maxDraft = MAX_DRAFT.model, adapt = true, cache } = options;
  const { model, sampling, history, ends, capacity, signal, seed } = context;
  // Draws of a drafter use up chance, so that lengths that hang on the clock would make a seed worthless.
  const repeatable = (sampling.temperature ?? 0) > 0 && seed !== undefined && options.clock === undefined;
  const times = repeatable ? new PassTimes() : timed(options, () => passTimes.of(model, drafter));
  return {
    source: new ModelDrafter(new SequenceReader(drafter, { capacity, kept: cache, signal }), {
      sampling,
      history,
      ends,
      // Another sequence than that of the target's own draws.
      random: seededRandom((seed ?? 0) ^ 0x5bd1e995),
    }),
    maxDraft,
    ...(adapt ? { pace: new Pacer(maxDraft, times) } : {}),
    ...(repeatable
      ? { clock: () => 0, time: (_, drafted) => 1 + drafted * (NOMINAL.row + NOMINAL.draft) }
      : byClock(options)),
  };
}

/** The drafter computes while the model does. */
function draftingBeside(
  drafter: StepModel,
  options: SpeculateOptions,
  context: SpeculationContext,
): Strategy {
  const { maxDraft = MAX_DRAFT.model, adapt = true, cache } = options;
  const { model, promptIds, sampling, ends, capacity } = context;
  return {
    source: new AsynchronousDrafter(new SequenceReader(drafter, { capacity, kept: cache }), {
      promptIds,
      sampling,
      ends,
      // What a pass checks, and as much again while it does.
      ahead: 2 * maxDraft,
    }),
    maxDraft,
    ...(adapt
      ? { pace: options.clock === undefined ? contests.of(model, drafter) : new Contest(maxDraft) }
      : {}),
    ...byClock(options),
  };
}

function byClock({ clock = () => performance.now() }: SpeculateOptions): Pick<Strategy, 'clock' | 'time'> {
  return { clock, time: (began) => clock() - began };
}

/** What is known from the generations before, unless the caller has a clock of its own. */
function timed({ clock }: SpeculateOptions, known: () => PassTimes): PassTimes {
  return clock === undefined ? known() : new PassTimes();
}

/** What is kept between generations of a model with the same drafter (the model itself for none). */
class PerPair<Value> {
  readonly #values = new WeakMap<StepModel, WeakMap<StepModel, Value>>();
  readonly #make: () => Value;

  constructor(make: () => Value) {
    this.#make = make;
  }

  of(model: StepModel, drafter: StepModel): Value {
    let ofModel = this.#values.get(model);
    if (ofModel === undefined) {
      ofModel = new WeakMap();
      this.#values.set(model, ofModel);
    }
    let value = ofModel.get(drafter);
    if (value === undefined) {
      value = this.#make();
      ofModel.set(drafter, value);
    }
    return value;
  }
}

const passTimes = new PerPair(() => new PassTimes());
const contests = new PerPair(() => new Contest());

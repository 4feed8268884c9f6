import { InferenceError } from '../../errors.js';
import type { PrefixCache } from '../prefix-cache.js';
import { seededRandom } from '../random.js';
import { requireOption, type SamplingOptions } from '../sampling.js';
import { SequenceReader } from '../sequence-reader.js';
import { canRewind, type StepModel } from '../step-model.js';
import type { TokenHistory } from '../token-history.js';
import { ModelDrafter } from './model-drafter.js';
import { Pacer } from './pacer.js';
import { PassTimes } from './pass-times.js';
import { PromptLookup } from './prompt-lookup.js';
import type { Draft, DraftKind, DraftSource } from './types.js';

/** Drafting tokens and checking several in one pass. What is generated stays the same; it may come sooner. */
export interface SpeculateOptions {
  /** `prompt`: what followed the same tokens before, in prompt or answer. A model: a smaller one, same tokenizer. */
  readonly drafter: 'prompt' | StepModel;
  /** The most tokens of a draft, from 1 to 64; 16 when absent, 8 with a model. */
  readonly maxDraft?: number;
  /** For drafts from the prompt: the longest match that is looked for, from 1 to 16 tokens; 3 when absent. */
  readonly ngram?: number;
  /** For a model: keeps its cache between generations. */
  readonly cache?: PrefixCache;
  /**
   * `false`: drafts always, and as long as `maxDraft` allows. Otherwise by what passes take and how often drafts are
   * right: nothing is drafted where that would not pay, and now and then it is tried again. Where a model drafts by
   * draws of a given `seed`, fixed costs stand for the times, so that the seed repeats.
   */
  readonly adapt?: boolean;
  /** Milliseconds; the process's clock when absent. */
  readonly clock?: () => number;
}

export interface SpeculationStatistics {
  /** Passes of the model that checked drafts. */
  readonly passes: number;
  /** Steps without a draft, the prompt's not counted. */
  readonly plainSteps: number;
  /** Those of them where a draft was to be had, but was not expected to pay, or plain steps were to be timed. */
  readonly declined: number;
  readonly drafted: number;
  readonly accepted: number;
  /**
   * Greedy decoding: tokens chosen in a checking pass where the two best logits were closer than 0.001. There,
   * other kernels for several positions may choose otherwise than a step for one position would.
   */
  readonly ties: number;
}

/** What a generation's speculation needs of the generation. */
export interface SpeculationContext {
  readonly model: StepModel;
  readonly sampling: SamplingOptions;
  /** Whether the caller asked for a seed. */
  readonly seed: number | undefined;
  readonly history: TokenHistory;
  readonly ends: ReadonlySet<number>;
  readonly vocabulary: number;
  readonly capacity: number;
  readonly signal: AbortSignal | undefined;
}

/** A draft that waits for its pass. */
export interface Proposal extends Draft {
  readonly kind: DraftKind;
}

export interface Outcome {
  readonly accepted: number;
  readonly ties: number;
}

/** Defaults, the best of those tried on answers of a small model that copy, and that do not. */
const MAX_DRAFT = { prompt: 16, model: 8 };
const NGRAM = 3;
/** In plain steps; for where the clock must not decide: a token more in a pass, a token of a drafter. */
const NOMINAL = { row: 0.1, draft: 0.4 };

/** @throws InferenceError `SAMPLING_INVALID`; `SPECULATION_UNSUPPORTED` for a model whose cache cannot go back. */
export function checkSpeculation(model: StepModel, { drafter, maxDraft, ngram }: SpeculateOptions): void {
  const within = (most: number) => (value: number) => Number.isInteger(value) && value >= 1 && value <= most;
  requireOption('speculate.maxDraft', maxDraft, 'a whole number from 1 to 64', within(64));
  requireOption('speculate.ngram', ngram, 'a whole number from 1 to 16', within(16));
  if (canRewind(model) && (drafter === 'prompt' || canRewind(drafter))) return;
  throw new InferenceError('SPECULATION_UNSUPPORTED', 'The model cannot take back tokens that it has read.', {
    expected: 'a cache that grows with the tokens',
    found: 'states of a fixed size',
    hint: 'leave out the option `speculate`',
  });
}

const known = new WeakMap<StepModel, WeakMap<StepModel, PassTimes>>();

/** What passes of a model took in earlier generations with the same drafter (the model itself for none). */
function timesOf(model: StepModel, drafter: StepModel): PassTimes {
  let ofModel = known.get(model);
  if (ofModel === undefined) {
    ofModel = new WeakMap();
    known.set(model, ofModel);
  }
  let times = ofModel.get(drafter);
  if (times === undefined) {
    times = new PassTimes();
    ofModel.set(drafter, times);
  }
  return times;
}

/** Drafts for one generation: asks for drafts where they pay and counts what came of them. */
export class Speculator {
  readonly #source: DraftSource;
  readonly #ends: ReadonlySet<number>;
  readonly #maxDraft: number;
  readonly #pacer: Pacer | undefined;
  readonly #clock: (() => number) | undefined;
  readonly #nominal: { readonly row: number; readonly draft: number };
  readonly #counts = { passes: 0, plainSteps: 0, declined: 0, drafted: 0, accepted: 0, ties: 0 };
  #began = 0;

  constructor(options: SpeculateOptions, context: SpeculationContext) {
    const { drafter, adapt = true } = options;
    const looksUp = drafter === 'prompt';
    const { maxDraft = looksUp ? MAX_DRAFT.prompt : MAX_DRAFT.model } = options;
    this.#ends = context.ends;
    this.#maxDraft = maxDraft;
    this.#nominal = { row: NOMINAL.row, draft: looksUp ? 0 : NOMINAL.draft };
    // Draws of a drafter use up chance, so that lengths that hang on the clock would make a seed worthless.
    const repeatable = !looksUp && (context.sampling.temperature ?? 0) > 0 && context.seed !== undefined;
    this.#clock = options.clock ?? (repeatable ? undefined : () => performance.now());
    const measured = options.clock === undefined && !repeatable;
    const { model } = context;
    const times = measured ? timesOf(model, looksUp ? model : drafter) : new PassTimes();
    this.#pacer = adapt ? new Pacer(maxDraft, times) : undefined;
    this.#source = looksUp
      ? new PromptLookup(options.ngram ?? NGRAM)
      : modelDrafter(drafter, options, context);
  }

  get statistics(): SpeculationStatistics {
    return { ...this.#counts };
  }

  /**
   * Begins a pass.
   *
   * @param context the tokens of prompt and answer
   * @param room the most tokens that may be drafted
   */
  async propose(context: readonly number[], room: number): Promise<Proposal | undefined> {
    this.#began = this.#clock?.() ?? 0;
    const limit = Math.min(this.#maxDraft, room);
    const kind = limit > 0 ? this.#source.look(context) : undefined;
    if (kind === undefined) return undefined;
    const length = Math.min(limit, this.#pacer?.length(kind) ?? limit);
    if (length === 0) {
      this.#counts.declined++;
      return undefined;
    }
    const draft = await this.#source.draft(context, length);
    const end = draft.ids.findIndex((id) => this.#ends.has(id));
    return { ...draft, kind, ids: end === -1 ? draft.ids : draft.ids.slice(0, end + 1) };
  }

  /** Ends the pass that `propose` began. */
  settle(proposal: Proposal | undefined, { accepted, ties }: Outcome): void {
    const drafted = proposal?.ids.length ?? 0;
    if (drafted === 0) this.#counts.plainSteps++;
    else this.#counts.passes++;
    this.#counts.drafted += drafted;
    this.#counts.accepted += accepted;
    this.#counts.ties += ties;
    const { row, draft } = this.#nominal;
    const time = this.#clock === undefined ? 1 + drafted * (row + draft) : this.#clock() - this.#began;
    this.#pacer?.record({
      kind: proposal?.kind,
      drafted,
      accepted,
      time: proposal?.warming ? undefined : time,
    });
  }

  release(): void {
    this.#source.release();
  }
}

function modelDrafter(
  model: StepModel,
  { cache }: SpeculateOptions,
  context: SpeculationContext,
): ModelDrafter {
  const { sampling, history, ends, vocabulary, capacity, signal, seed = 0 } = context;
  return new ModelDrafter(new SequenceReader(model, { capacity, kept: cache, signal }), {
    sampling,
    history,
    vocabulary,
    ends,
    // Another sequence than that of the target's own draws.
    random: seededRandom(seed ^ 0x5bd1e995),
  });
}

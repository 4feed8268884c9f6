import type { ChosenToken } from '../token-chooser.js';
import type { SpeculateOptions } from './options.js';
import { type SpeculationContext, type Strategy, strategyFor } from './strategy.js';
import type { Draft, DraftKind } from './types.js';

export interface SpeculationStatistics {
  /** Passes of the model that checked drafts. */
  readonly passes: number;
  /** Steps without a draft, the prompt's not counted. */
  readonly plainSteps: number;
  /** Those of them where a draft was to be had, but was not expected to pay, or plain steps were to be timed. */
  readonly declined: number;
  readonly drafted: number;
  readonly accepted: number;
  /** With `asynchronous`: steps of the drafter that were ended early, since what they went on from was refuted. */
  readonly cancelled?: number;
  /**
   * Greedy decoding: tokens chosen in a checking pass where the two best logits were closer than 0.001. There,
   * other kernels for several positions may choose otherwise than a step for one position would.
   */
  readonly ties: number;
}

/** A draft that waits for its pass. */
export interface Proposal extends Draft {
  readonly kind: DraftKind;
}

export interface Progress {
  /** The tokens of prompt and answer. */
  readonly context: readonly number[];
  /** The most tokens that may be drafted. */
  readonly room: number;
  /** How many tokens the model knows. */
  readonly vocabulary: number;
}

export interface Outcome {
  /** What the pass was asked with. */
  readonly context: readonly number[];
  /** What came behind it. */
  readonly tokens: readonly ChosenToken[];
  readonly accepted: number;
  readonly ties: number;
}

/** Drafts for one generation: asks for drafts where they pay and counts what came of them. */
export class Speculator {
  readonly #strategy: Strategy;
  readonly #ends: ReadonlySet<number>;
  readonly #counts = { passes: 0, plainSteps: 0, declined: 0, drafted: 0, accepted: 0, ties: 0 };
  #began = 0;

  constructor(options: SpeculateOptions, context: SpeculationContext) {
    this.#strategy = strategyFor(options, context);
    this.#ends = context.ends;
  }

  get statistics(): SpeculationStatistics {
    const { cancelled } = this.#strategy.source;
    return { ...this.#counts, ...(cancelled === undefined ? {} : { cancelled }) };
  }

  /** Called when the model begins to read the prompt. */
  begin(): void {
    const { source, pace } = this.#strategy;
    if (pace?.resting !== true) source.begin?.();
  }

  /** Begins a pass. @throws what a drafting model throws */
  async propose({ context, room, vocabulary }: Progress): Promise<Proposal | undefined> {
    const { source, pace, clock, maxDraft } = this.#strategy;
    this.#began = clock();
    const limit = Math.min(maxDraft, room);
    const kind = limit > 0 ? source.look(context) : undefined;
    if (kind === undefined) return undefined;
    const length = Math.min(limit, pace?.length(kind) ?? limit);
    if (length === 0) {
      source.pause?.();
      this.#counts.declined++;
      return undefined;
    }
    const draft = await source.draft({ context, limit: length, room, vocabulary });
    const end = draft.ids.findIndex((id) => this.#ends.has(id));
    return { ...draft, kind, ids: end === -1 ? draft.ids : draft.ids.slice(0, end + 1) };
  }

  /** Ends the pass that `propose` began. */
  settle(proposal: Proposal | undefined, { context, tokens, accepted, ties }: Outcome): void {
    const { source, pace, time } = this.#strategy;
    if (proposal !== undefined)
      source.follow?.(
        context,
        tokens.map(({ id }) => id),
      );
    const drafted = proposal?.ids.length ?? 0;
    if (drafted === 0) this.#counts.plainSteps++;
    else this.#counts.passes++;
    this.#counts.drafted += drafted;
    this.#counts.accepted += accepted;
    this.#counts.ties += ties;
    pace?.record({
      kind: proposal?.kind,
      drafted,
      accepted,
      time: proposal?.warming ? undefined : time(this.#began, drafted),
    });
  }

  async release(): Promise<void> {
    await this.#strategy.source.release();
  }
}

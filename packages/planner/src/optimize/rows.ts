import type { OnProgress } from '@cqil/core';
import { DecoderSession, type SessionOptions } from '@cqil/runtime-gpu';
import {
  agreement,
  continueGreedily,
  evaluateKinds,
  evaluateOriginal,
  generationSamples,
  ITEMS,
  promptsFrom,
  Reference,
  scoreItems,
  type TextSet,
  type Tokenizer,
} from '../evaluate/index.js';
import type { Model } from '../onnx/index.js';
import { openVariant } from '../variant/index.js';
import type { EvaluationRow, OptimizeReport } from './document.js';

export interface JudgeOptions {
  readonly tokenizer: Tokenizer;
  readonly set: TextSet;
  /** Kinds of the set that count for no mean. */
  readonly beside: readonly string[];
  /** Whether to score items and to generate, too. */
  readonly samples: boolean;
  readonly session?: SessionOptions | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: OnProgress | undefined;
}

/** What is judged: a file, or a model in memory. */
export type Judged = string | Model;

export interface RowHead {
  readonly id: string;
  readonly name: string;
  readonly steps: number;
  readonly recovered: boolean;
  /** Items and generation for this row, where the options want them for any. */
  readonly samples?: boolean;
}

export interface JudgedRow {
  readonly row: EvaluationRow;
  /** Greedy continuations of the prompts. */
  readonly continuations?: readonly (readonly number[])[];
}

/** Prompts that are continued, and tokens of each prompt and continuation. */
const PROMPTS = { count: 6, length: 48 };
const CONTINUATION = 48;

/** Judges models by one set of evaluation text, all in the same way and against the same original. */
export class Judge {
  readonly #options: JudgeOptions;
  readonly #original: Judged;
  readonly #prompts: readonly (readonly number[])[];
  #opened: DecoderSession | undefined;
  #reference: Reference | undefined;

  constructor(original: Judged, options: JudgeOptions) {
    this.#original = original;
    this.#options = options;
    this.#prompts = promptsFrom(options.set, PROMPTS);
  }

  /** @throws what evaluation throws; the signal's reason */
  async original(head: RowHead): Promise<JudgedRow> {
    const decoder = await this.#originalDecoder();
    this.#reference ??= new Reference(decoder);
    return this.#row(head, decoder, await evaluateOriginal(this.#reference, this.#options.set, this.#run()));
  }

  /**
   * @param original greedy continuations by the original, to compare with
   */
  async row(head: RowHead, judged: Judged, original: JudgedRow['continuations']): Promise<JudgedRow> {
    this.#reference ??= new Reference(await this.#originalDecoder());
    const decoder = await this.#open(judged);
    try {
      const found = await evaluateKinds(this.#reference, decoder, this.#options.set, this.#run());
      return await this.#row(head, decoder, found, original);
    } finally {
      await decoder.dispose();
    }
  }

  /** What both write, as text. */
  samples(
    original: JudgedRow['continuations'] = [],
    planned: JudgedRow['continuations'] = [],
  ): OptimizeReport['samples'] {
    return generationSamples(this.#options.tokenizer, this.#prompts, original, planned);
  }

  async dispose(): Promise<void> {
    await this.#opened?.dispose();
    this.#opened = undefined;
  }

  async #row(
    { samples = true, ...head }: RowHead,
    decoder: DecoderSession,
    found: Awaited<ReturnType<typeof evaluateKinds>>,
    original?: JudgedRow['continuations'],
  ): Promise<JudgedRow> {
    const { beside, tokenizer } = this.#options;
    const kinds = found.kinds.map((kind) => (beside.includes(kind.kind) ? { ...kind, beside: true } : kind));
    const counted = kinds.filter((kind) => !('beside' in kind));
    const excess = Math.expm1(
      counted.reduce((sum, kind) => sum + Math.log1p(kind.excess), 0) / counted.length,
    );
    const row: EvaluationRow = { ...head, kinds, excess };
    if (!this.#options.samples || !samples) return { row };
    const { kinds: items } = await scoreItems(decoder, tokenizer, ITEMS, this.#run());
    const continuations = await continueGreedily(decoder, this.#prompts, {
      length: CONTINUATION,
      ...this.#run(),
    });
    return {
      row: { ...row, items, generation: agreement(original ?? continuations, continuations) },
      continuations,
    };
  }

  #run() {
    const { signal, onProgress } = this.#options;
    return {
      ...(signal === undefined ? {} : { signal }),
      ...(onProgress === undefined ? {} : { onProgress }),
    };
  }

  async #originalDecoder(): Promise<DecoderSession> {
    this.#opened ??= await this.#open(this.#original);
    return this.#opened;
  }

  async #open(judged: Judged): Promise<DecoderSession> {
    const { session } = this.#options;
    if (typeof judged === 'string') return DecoderSession.open(judged, session);
    return new DecoderSession(await openVariant(judged, session));
  }
}

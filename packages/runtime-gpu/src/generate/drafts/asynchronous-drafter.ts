import { likeliest } from '../distribution.js';
import type { SamplingOptions } from '../sampling.js';
import type { LogitRows, SequenceReader } from '../sequence-reader.js';
import { shapeLogits } from '../shaping.js';
import { TokenHistory } from '../token-history.js';
import type { Draft, DraftKind, DraftRequest, DraftSource } from './types.js';

const KIND: DraftKind = { id: 0, chance: 0.7 };
/** Tokens of a prompt that are read at once: what was read is not lost when the answer ends before the prompt does. */
const CHUNK = 256;
/** Passes that may go by while the prompt is read before they count as passes that drafts were of no use to. */
const WARMING = 8;

export interface AsynchronousDrafterOptions {
  readonly promptIds: readonly number[];
  readonly sampling: SamplingOptions;
  /** Tokens that end the text: nothing is drafted after one. */
  readonly ends: ReadonlySet<number>;
  /** How far it may be ahead of what is known for sure, in tokens. */
  readonly ahead: number;
}

/** A step of the drafting model that goes on. */
interface Step {
  /** The tokens that will have been read after it. */
  readonly end: number;
  readonly abort: AbortController;
}

/**
 * Drafts with a smaller model at the same time as the target computes, each on a device of its own (continuous
 * asynchronous speculation; PipeInfer, arXiv 2407.11798).
 *
 * It goes on drafting behind its own tokens, while the target checks the first of them. A draft is never waited for: a
 * pass of the target checks those that are ready when it begins. When a pass refutes a token, the step that goes on
 * behind it is ended at once (early inference cancellation), and drafting begins anew behind the target's token.
 *
 * How many drafts are ready depends on time. What they are must not, and their being there must not change what is
 * chosen: so they are the likeliest tokens, also where the target draws; see `TokenChooser.verify`.
 */
export class AsynchronousDrafter implements DraftSource {
  readonly #reader: SequenceReader;
  readonly #options: AsynchronousDrafterOptions;
  readonly #history: TokenHistory;
  /** What is known for sure, and what was drafted behind it. */
  readonly #tokens: number[];
  /** So many of the tokens are known for sure. */
  #known: number;
  /** So many of the tokens at the beginning have been read. */
  #read = 0;
  /** The logits behind the last token, when all have been read. */
  #rows: LogitRows | undefined;
  /** So many tokens there may be in all. */
  #limit = 0;
  /** Known from the target's first logits on. */
  #vocabulary: number | undefined;
  #step: Step | undefined;
  #busy = false;
  /** Of the last time that it was busy. */
  #running: Promise<void> = Promise.resolve();
  #idle = true;
  #warmed = 0;
  #resumed = false;
  #failure: { readonly error: unknown } | undefined;
  #cancelled = 0;

  constructor(reader: SequenceReader, options: AsynchronousDrafterOptions) {
    this.#reader = reader;
    this.#options = options;
    this.#history = new TokenHistory(options.promptIds);
    this.#tokens = [...options.promptIds];
    this.#known = options.promptIds.length;
  }

  get cancelled(): number {
    return this.#cancelled;
  }

  begin(): void {
    this.#idle = false;
    this.#wake();
  }

  look(): DraftKind {
    return KIND;
  }

  /** @throws what the drafting model threw */
  async draft({ context, limit, room, vocabulary }: DraftRequest): Promise<Draft> {
    this.#idle = false;
    this.#vocabulary = vocabulary;
    this.#follow(context, []);
    this.#limit = context.length + Math.min(this.#options.ahead, room);
    this.#wake();
    if (this.#failure !== undefined) throw this.#failure.error;
    return {
      ids: this.#tokens.slice(context.length, context.length + limit),
      warming: this.#read < this.#options.promptIds.length && this.#warmed++ < WARMING,
    };
  }

  follow(context: readonly number[], next: readonly number[]): void {
    this.#follow(context, next);
    this.#wake();
  }

  pause(): void {
    this.#idle = true;
    this.#step?.abort.abort();
  }

  async release(): Promise<void> {
    this.pause();
    await this.#running;
    this.#reader.release();
  }

  /** Takes over how the text went on; what was drafted otherwise is forgotten. */
  #follow(context: readonly number[], next: readonly number[]): void {
    const length = context.length + next.length;
    const at = (index: number) => (index < context.length ? context[index]! : next[index - context.length]!);
    let agreed = this.#known;
    while (agreed < length && this.#tokens[agreed] === at(agreed)) agreed++;
    if (agreed < length) this.#cut(agreed);
    for (let index = agreed; index < length; index++) this.#push(at(index));
    this.#known = length;
  }

  #cut(length: number): void {
    for (const id of this.#tokens.splice(length)) this.#history.remove(id);
    this.#rows = undefined;
    this.#read = Math.min(this.#read, length);
    const step = this.#step;
    if (step === undefined || step.abort.signal.aborted || step.end <= length) return;
    this.#cancelled++;
    step.abort.abort();
  }

  #push(id: number): void {
    this.#tokens.push(id);
    this.#history.push(id);
    this.#rows = undefined;
  }

  #wake(): void {
    if (this.#busy || !this.#hasWork()) return;
    this.#busy = true;
    this.#running = this.#run();
  }

  async #run(): Promise<void> {
    try {
      while (this.#hasWork()) {
        if (this.#rows === undefined) await this.#advance();
        else this.#choose(this.#rows);
      }
    } catch (error) {
      this.#failure = { error };
    } finally {
      // In the same turn as the last look for work, so that nobody who brings some takes this for going on.
      this.#busy = false;
    }
  }

  #hasWork(): boolean {
    if (this.#idle || this.#failure !== undefined) return false;
    return this.#mayDraft() || this.#read < this.#known;
  }

  #mayDraft(): boolean {
    if (this.#vocabulary === undefined || this.#tokens.length >= this.#limit) return false;
    const generated = this.#tokens.length > this.#options.promptIds.length;
    return !(generated && this.#options.ends.has(this.#tokens.at(-1)!));
  }

  /** Reads on, as one step of the model. */
  async #advance(): Promise<void> {
    const reader = this.#reader;
    if (!this.#resumed) {
      this.#resumed = true;
      this.#read = reader.resume(this.#tokens);
    }
    const all = this.#tokens.length;
    // A step that was ended late may have read more than it told. The logits behind the last token are wanted, so
    // that it is read again where they are gone.
    reader.rewind(Math.min(reader.agreement(this.#tokens, this.#read), all - 1));
    const end = Math.min(all, reader.length + CHUNK);
    const abort = new AbortController();
    const step: Step = { end, abort };
    this.#step = step;
    try {
      const rows = await reader.read(this.#tokens.slice(reader.length, end), 'last', {
        signal: abort.signal,
      });
      // Tokens that were cut off since are not to be taken for read.
      if (abort.signal.aborted) return;
      this.#read = end;
      if (end === this.#tokens.length) this.#rows = rows;
    } catch (error) {
      if (!abort.signal.aborted) throw error;
    } finally {
      this.#step = undefined;
    }
  }

  #choose(rows: LogitRows): void {
    const logits = rows.at(-1).subarray(0, this.#vocabulary);
    this.#push(likeliest(shapeLogits(logits, this.#options.sampling, this.#history)));
  }
}

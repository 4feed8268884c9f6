import type { TokenDistribution } from '../distribution.js';

/** Tokens that may come next, to be checked by the model in one pass. */
export interface Draft {
  readonly ids: readonly number[];
  /** For tokens that were drawn: from what, one for each. Absent: no chance was in it. */
  readonly drawnFrom?: readonly TokenDistribution[];
  /** Something had to be done for this draft that the next will not need again: its time says nothing. */
  readonly warming?: boolean;
}

/** Drafts that are judged together. */
export interface DraftKind {
  readonly id: number;
  /** The chance that a token is right, those before it being right, as long as nothing is known. */
  readonly chance: number;
}

export interface DraftRequest {
  /** The tokens of prompt and answer; what `look` was called with last. */
  readonly context: readonly number[];
  /** The most tokens to draft, 1 or more. */
  readonly limit: number;
  /** The most tokens that could be drafted behind the context at all, `limit` or more. */
  readonly room: number;
  /** How many tokens the target knows; a drafter may be padded to another size. */
  readonly vocabulary: number;
}

/** Where drafts come from. One for each generation. */
export interface DraftSource {
  /** Drafts that were begun and given up, being refuted before they were done; absent where none ever is. */
  readonly cancelled?: number;
  /** Called when the target begins to read the prompt. */
  begin?(): void;
  /**
   * Whether there is something to propose after these tokens, and of which kind. `undefined`: nothing.
   *
   * @param context the tokens of prompt and answer
   */
  look(context: readonly number[]): DraftKind | undefined;
  draft(request: DraftRequest): Promise<Draft>;
  /** Called as soon as a pass has shown how the text goes on: by `next`, behind `context`. */
  follow?(context: readonly number[], next: readonly number[]): void;
  /** Called instead of `draft` where none is wanted for now. */
  pause?(): void;
  /** Ends it, once what it computes has ended. */
  release(): void | Promise<void>;
}

/** What one pass of the model brought. */
export interface PassRecord {
  /** `undefined` for a plain step. */
  readonly kind: DraftKind | undefined;
  /** Drafted tokens that the pass checked; 0 for a plain step. */
  readonly drafted: number;
  readonly accepted: number;
  /** Time for drafting, the pass and choosing; `undefined` where it says nothing about the next. */
  readonly time: number | undefined;
}

/** Decides how many tokens to draft, by what came of it before. */
export interface Pace {
  /** No drafts are wanted for now. */
  readonly resting?: boolean;
  /** How many tokens of this kind of draft to ask for; 0 for a plain step. */
  length(kind: DraftKind): number;
  record(record: PassRecord): void;
}

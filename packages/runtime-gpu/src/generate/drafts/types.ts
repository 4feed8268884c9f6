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

/** Where drafts come from. One for each generation. */
export interface DraftSource {
  /**
   * Whether there is something to propose after these tokens, and of which kind. `undefined`: nothing.
   *
   * @param context the tokens of prompt and answer
   */
  look(context: readonly number[]): DraftKind | undefined;
  /**
   * @param context what `look` was called with last
   * @param limit the most tokens, 1 or more
   */
  draft(context: readonly number[], limit: number): Promise<Draft>;
  release(): void;
}

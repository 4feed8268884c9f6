import type { TextPiece, TokenLogprob } from '../model.js';
import { StopMatcher } from './stop.js';

export type FinishReason = 'length' | 'stop';

/** A token's log probability, and where its text begins in the answer. */
export interface PlacedLogprob extends TokenLogprob {
  readonly offset: number;
}

/** What came of a generation since the part before. */
export interface AnswerPart {
  /** To be added to the answer; may be empty. */
  readonly text: string;
  /** Tokens generated up to here, an end token included. */
  readonly tokens: number;
  /** Of the tokens whose text begins in this part, when asked for. */
  readonly logprobs: readonly PlacedLogprob[];
  /** Tokens of the prompt that were known already; on a part of its own, before any text. */
  readonly cachedTokens?: number;
  /** Of the prompt's tokens, when asked for; on the first part. */
  readonly prompt?: readonly TokenLogprob[];
  /** On the last part. */
  readonly finishReason?: FinishReason;
}

/**
 * Makes an answer of pieces, up to an end token, a stop string (which is left out) or the most tokens.
 * The last part, and no other, has a `finishReason`. Tokens of a stop string have no log probabilities.
 */
export async function* answer(
  pieces: AsyncIterable<TextPiece>,
  stops: readonly string[],
): AsyncGenerator<AnswerPart, void, undefined> {
  const matcher = new StopMatcher(stops);
  /** Characters that the tokens hold, and those of them that have been handed out. */
  let made = 0;
  let given = 0;
  let held: PlacedLogprob[] = [];
  let tokens = 0;
  let finishReason: FinishReason = 'length';

  const part = (text: string, rest: boolean) => {
    given += text.length;
    const ready = rest ? held : held.filter(({ offset }) => offset < given);
    held = rest ? [] : held.filter(({ offset }) => offset >= given);
    return { text, tokens, logprobs: ready };
  };
  for await (const piece of pieces) {
    if (piece.prompt !== undefined) yield { text: '', tokens, logprobs: [], prompt: piece.prompt };
    if (piece.cachedTokens !== undefined) {
      yield { text: '', tokens, logprobs: [], cachedTokens: piece.cachedTokens };
    }
    tokens += piece.tokens;
    if (piece.logprob !== undefined) held.push({ ...piece.logprob, offset: made });
    made += piece.text.length;
    const { text, stopped } = matcher.push(piece.text);
    if (stopped) {
      yield { ...part(text, false), finishReason: 'stop' };
      return;
    }
    if (text !== '') yield part(text, false);
    if (piece.finishReason !== undefined) finishReason = piece.finishReason;
  }
  yield { ...part(matcher.flush(), true), finishReason };
}

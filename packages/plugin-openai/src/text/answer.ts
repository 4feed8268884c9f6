import type { TextModel, TextRequest } from '../model.js';
import { StopMatcher } from './stop.js';

export type FinishReason = 'length' | 'stop';

/** What came of a generation so far. */
export interface AnswerPart {
  /** To be added to the answer; may be empty. */
  readonly text: string;
  /** Tokens generated up to here, an end token included. */
  readonly tokens: number;
  /** On the last part. */
  readonly finishReason?: FinishReason;
}

/**
 * Generates an answer up to an end token, a stop string (which is left out) or the most tokens.
 * The last part, and no other, has a `finishReason`.
 */
export async function* answer(
  model: TextModel,
  request: TextRequest,
  stops: readonly string[],
): AsyncGenerator<AnswerPart, void, undefined> {
  const matcher = new StopMatcher(stops);
  let tokens = 0;
  let finishReason: FinishReason = 'length';
  for await (const piece of model.generate(request)) {
    tokens += piece.tokens;
    const { text, stopped } = matcher.push(piece.text);
    if (stopped) {
      yield { text, tokens, finishReason: 'stop' };
      return;
    }
    if (text !== '') yield { text, tokens };
    if (piece.finishReason !== undefined) finishReason = piece.finishReason;
  }
  yield { text: matcher.flush(), tokens, finishReason };
}

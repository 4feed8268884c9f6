/** A message of a chat, as chat templates take it. */
export interface ChatMessage {
  readonly role: 'assistant' | 'system' | 'user';
  readonly content: string;
}

export interface TextRequest {
  /** The prompt's tokens, at least one. */
  readonly promptIds: readonly number[];
  /** The most tokens to generate, at least one. */
  readonly maxTokens: number;
  /** 0 takes the most likely token. */
  readonly temperature: number;
  /** Nucleus sampling: more than 0, at most 1. */
  readonly topP: number;
  readonly seed: number;
  /** Ends the generation within one token. */
  readonly signal: AbortSignal;
}

/** What the next token brings. */
export interface TextPiece {
  /** Whole characters only; empty while a character's last bytes are still to come. */
  readonly text: string;
  /** How many tokens this piece took: 1, or 0 for a last piece without one. */
  readonly tokens: number;
  /** On the last piece: `stop` for an end token, `length` for `maxTokens`. */
  readonly finishReason?: 'length' | 'stop';
}

/** A language model that can be served. Calls of `generate` come one after the other, never two at a time. */
export interface TextModel {
  /** The name by which requests ask for it. */
  readonly id: string;
  /** When the model was made, in seconds since 1970. */
  readonly created: number;
  /** The most tokens that prompt and answer have together. */
  readonly contextLength: number;
  /** The tokens of a chat, up to where the assistant's answer starts. */
  encodeChat(messages: readonly ChatMessage[]): readonly number[];
  /** The tokens of a text to be continued. */
  encode(text: string): readonly number[];
  /** One piece for each token, an end token included. Ending the iteration early ends the generation. */
  generate(request: TextRequest): AsyncIterable<TextPiece>;
}

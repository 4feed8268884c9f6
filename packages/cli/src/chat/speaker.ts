/** A message of a conversation. */
export interface Message {
  readonly role: 'assistant' | 'user';
  readonly content: string;
}

export interface Answer {
  readonly text: string;
  readonly tokens: number;
  /** From the prompt's end to the answer's, in ms. */
  readonly milliseconds: number;
}

export interface SpeakerOptions {
  readonly maxTokens: number;
  /** Draws tokens by the model's own generation settings; without it the likeliest token is taken. */
  readonly seed: number | undefined;
}

/** A model that answers, and writes its answer out as it comes. */
export interface Speaker extends AsyncDisposable {
  answer(messages: readonly Message[]): Promise<Answer>;
}

import type { AnswerPart, FinishReason } from '../text/answer.js';

/** One request, as its response objects name it. */
export interface RequestFrame {
  readonly id: string;
  readonly created: number;
  readonly model: string;
}

export interface Usage {
  readonly prompt_tokens: number;
  readonly completion_tokens: number;
  readonly total_tokens: number;
}

export function usageOf(promptTokens: number, completionTokens: number): Usage {
  return {
    prompt_tokens: promptTokens,
    completion_tokens: completionTokens,
    total_tokens: promptTokens + completionTokens,
  };
}

/** How one of the two kinds of request says its answer. */
export interface Dialect {
  readonly idPrefix: string;
  /** The whole answer at once. */
  whole(frame: RequestFrame, text: string, finishReason: FinishReason, usage: Usage): object;
  /** What a stream begins with, before the first token. */
  opening(frame: RequestFrame): readonly object[];
  /** A piece of text. */
  piece(frame: RequestFrame, text: string): object;
  /** The end, without text. */
  closing(frame: RequestFrame, finishReason: NonNullable<AnswerPart['finishReason']>): object;
  /** The usage, after everything else. */
  usage(frame: RequestFrame, usage: Usage): object;
}

const chunk = ({ id, created, model }: RequestFrame, choices: readonly object[]) => ({
  id,
  object: 'chat.completion.chunk',
  created,
  model,
  choices,
});

const delta = (content: object, finish_reason: FinishReason | null = null) => [
  { index: 0, delta: content, logprobs: null, finish_reason },
];

/** `chat.completion`: a stream names the role first, and ends with an empty delta. */
export const chatDialect: Dialect = {
  idPrefix: 'chatcmpl-',
  whole: ({ id, created, model }, content, finish_reason, usage) => ({
    id,
    object: 'chat.completion',
    created,
    model,
    choices: [
      { index: 0, message: { role: 'assistant', content, refusal: null }, logprobs: null, finish_reason },
    ],
    usage,
  }),
  opening: (frame) => [chunk(frame, delta({ role: 'assistant', content: '' }))],
  piece: (frame, content) => chunk(frame, delta({ content })),
  closing: (frame, finishReason) => chunk(frame, delta({}, finishReason)),
  usage: (frame, usage) => ({ ...chunk(frame, []), usage }),
};

const completion = ({ id, created, model }: RequestFrame, choices: readonly object[]) => ({
  id,
  object: 'text_completion',
  created,
  model,
  choices,
});

const choice = (text: string, finish_reason: FinishReason | null) => [
  { index: 0, text, logprobs: null, finish_reason },
];

/** `text_completion` */
export const completionDialect: Dialect = {
  idPrefix: 'cmpl-',
  whole: (frame, text, finishReason, usage) => ({ ...completion(frame, choice(text, finishReason)), usage }),
  opening: () => [],
  piece: (frame, text) => completion(frame, choice(text, null)),
  closing: (frame, finishReason) => completion(frame, choice('', finishReason)),
  usage: (frame, usage) => ({ ...completion(frame, []), usage }),
};

import type { ApiError } from '../http/error.js';
import type { ServerEvent } from '../http/events.js';
import type { AnswerPart } from '../text/answer.js';

/** One request, as its response objects name it. */
export interface Frame {
  readonly id: string;
  /** Seconds since 1970. */
  readonly created: number;
  readonly model: string;
}

export interface TokenCount {
  readonly prompt: number;
  readonly completion: number;
  /** Of the prompt's, those known from an earlier request. */
  readonly cached: number;
}

/**
 * Says an answer in the words of one of the interfaces, whole or bit by bit: both come of the same parts, so they
 * cannot differ.
 */
export interface Writer {
  /** What a stream begins with, before the first token. */
  opening(): ServerEvent[];
  /** Takes the next part of a choice. */
  part(choice: number, part: AnswerPart): ServerEvent[];
  /** What a stream ends with when everything has been said. */
  closing(count: TokenCount): ServerEvent[];
  /** What a stream ends with when something went wrong after its beginning. */
  failure(error: ApiError, count: TokenCount): ServerEvent[];
  /** The whole answer, after the last part. */
  whole(count: TokenCount): object;
}

export function usageOf({ prompt, completion, cached }: TokenCount) {
  return {
    prompt_tokens: prompt,
    completion_tokens: completion,
    total_tokens: prompt + completion,
    prompt_tokens_details: { cached_tokens: cached },
  };
}

/** JSON has no infinity; a token that cannot come has this, as with OpenAI. */
export function finite(logprob: number): number {
  return Math.max(logprob, -9999);
}

/** One chunk of a stream of the chat's or the completions' interface, and what ends it. */
export class Chunks {
  readonly #includeUsage: boolean;

  constructor(includeUsage: boolean) {
    this.#includeUsage = includeUsage;
  }

  /** With usage asked for, every chunk but the last says that it has none. */
  chunk(object: object): ServerEvent {
    return { data: this.#includeUsage ? { ...object, usage: null } : object };
  }

  closing(object: object, count: TokenCount): ServerEvent[] {
    const usage = this.#includeUsage ? [{ data: { ...object, choices: [], usage: usageOf(count) } }] : [];
    return [...usage, { data: '[DONE]' }];
  }

  failure(error: ApiError): ServerEvent[] {
    return [{ data: error.body() }];
  }
}

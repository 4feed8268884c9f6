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
  /** Absent where nobody wants them told. */
  readonly timings?: Timings | undefined;
}

/** How long a request took, without its wait in the queue; the names are those of llama.cpp's server. */
export interface Timings {
  /** Tokens of the prompts that were known already, and those that were read. */
  readonly cache_n: number;
  readonly prompt_n: number;
  readonly prompt_ms: number;
  readonly prompt_per_token_ms: number;
  readonly prompt_per_second: number;
  /** Generated tokens, and the time from the first of them on. */
  readonly predicted_n: number;
  readonly predicted_ms: number;
  readonly predicted_per_token_ms: number;
  readonly predicted_per_second: number;
  /** Tokens that were drafted, and those of them that were right; only where any could be. */
  readonly draft_n?: number;
  readonly draft_n_accepted?: number;
}

/**
 * Says an answer in the words of one of the interfaces, whole or bit by bit: both come of the same parts, so they
 * cannot differ.
 */
export interface Writer {
  /** What a stream begins with, before the first token. */
  opening(): ServerEvent[];
  /** Takes the next part of a choice. @param timings up to here; absent where nobody wants them told */
  part(choice: number, part: AnswerPart, timings?: () => Timings): ServerEvent[];
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

/** As a member of an answer's object. */
export function timingsOf({ timings }: TokenCount) {
  return timings === undefined ? {} : { timings };
}

/** JSON has no infinity; a token that cannot come has this, as with OpenAI. */
export function finite(logprob: number): number {
  return Math.max(logprob, -9999);
}

/** What a client wants of chunks besides text. */
export interface ChunkOptions {
  /** A last chunk with the usage. */
  readonly includeUsage: boolean;
  /** Timings on every chunk, not only on the last. */
  readonly timingsPerToken: boolean;
}

/** One chunk of a stream of the chat's or the completions' interface, and what ends it. */
export class Chunks {
  readonly #options: ChunkOptions;

  constructor(options: ChunkOptions) {
    this.#options = options;
  }

  /**
   * With usage asked for, every chunk but the last says that it has none.
   *
   * @param last no choice has more to say
   */
  chunk(object: object, timings?: () => Timings, last = false): ServerEvent {
    const { includeUsage, timingsPerToken } = this.#options;
    const timed = timings !== undefined && (timingsPerToken || (last && !includeUsage));
    if (!timed && !includeUsage) return { data: object };
    return {
      data: { ...object, ...(includeUsage ? { usage: null } : {}), ...(timed ? { timings: timings() } : {}) },
    };
  }

  closing(object: object, count: TokenCount): ServerEvent[] {
    const usage = { ...object, choices: [], usage: usageOf(count), ...timingsOf(count) };
    return [...(this.#options.includeUsage ? [{ data: usage }] : []), { data: '[DONE]' }];
  }

  failure(error: ApiError): ServerEvent[] {
    return [{ data: error.body() }];
  }
}

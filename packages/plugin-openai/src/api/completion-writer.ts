import type { ApiError } from '../http/error.js';
import type { ServerEvent } from '../http/events.js';
import type { TokenLogprob } from '../model.js';
import type { AnswerPart, FinishReason } from '../text/answer.js';
import {
  type ChunkOptions,
  Chunks,
  type Frame,
  finite,
  type Timings,
  type TokenCount,
  timingsOf,
  usageOf,
  type Writer,
} from './writer.js';

export interface CompletionWriterOptions extends ChunkOptions {
  /** For each choice, what its text begins with: the prompt where it is to be echoed. */
  readonly echoes: readonly string[];
  readonly logprobs: boolean;
}

interface Logprobs {
  readonly tokens: string[];
  readonly token_logprobs: (number | null)[];
  readonly top_logprobs: (Record<string, number> | null)[];
  readonly text_offset: number[];
}

interface Choice {
  text: string;
  finish: FinishReason | null;
  readonly logprobs: Logprobs;
  /** Whether the stream has had the echo. */
  echoed: boolean;
}

/** `text_completion`. Choices go by prompt, then by answer. */
export class CompletionWriter implements Writer {
  readonly #frame: Frame;
  readonly #options: CompletionWriterOptions;
  readonly #choices: Choice[];
  readonly #chunks: Chunks;

  constructor(frame: Frame, options: CompletionWriterOptions) {
    this.#frame = frame;
    this.#options = options;
    this.#chunks = new Chunks(options);
    this.#choices = options.echoes.map((text) => ({
      text,
      finish: null,
      logprobs: noLogprobs(),
      echoed: text === '',
    }));
  }

  opening(): ServerEvent[] {
    return [];
  }

  part(
    index: number,
    { text, logprobs, prompt, finishReason }: AnswerPart,
    timings?: () => Timings,
  ): ServerEvent[] {
    const choice = this.#choices[index] as Choice;
    const echo = this.#options.echoes[index] as string;
    const told = noLogprobs();
    if (prompt !== undefined) addPrompt(told, prompt);
    for (const one of logprobs) add(told, one, echo.length + one.offset);
    for (const key of ['tokens', 'token_logprobs', 'top_logprobs', 'text_offset'] as const) {
      (choice.logprobs[key] as unknown[]).push(...told[key]);
    }
    choice.text += text;
    // The echo comes with its log probabilities, or with the first text.
    const said = choice.echoed ? text : echo + text;
    const events: ServerEvent[] = [];
    if (said !== '' || told.tokens.length > 0) {
      choice.echoed = true;
      events.push(this.#chunk(index, said, told, null, timings));
    }
    if (finishReason === undefined) return events;
    choice.finish = finishReason;
    return [...events, this.#chunk(index, '', noLogprobs(), finishReason, timings)];
  }

  closing(count: TokenCount): ServerEvent[] {
    return this.#chunks.closing(this.#base(), count);
  }

  failure(error: ApiError): ServerEvent[] {
    return this.#chunks.failure(error);
  }

  whole(count: TokenCount): object {
    return {
      ...this.#base(),
      choices: this.#choices.map(({ text, finish, logprobs }, index) => ({
        index,
        text,
        logprobs: this.#options.logprobs ? logprobs : null,
        finish_reason: finish,
      })),
      usage: usageOf(count),
      ...timingsOf(count),
    };
  }

  #chunk(
    index: number,
    text: string,
    told: Logprobs,
    finish_reason: FinishReason | null,
    timings: (() => Timings) | undefined,
  ): ServerEvent {
    const logprobs = this.#options.logprobs && told.tokens.length > 0 ? told : null;
    // Choices come one after the other.
    const last = finish_reason !== null && index === this.#choices.length - 1;
    const choice = { index, text, logprobs, finish_reason };
    return this.#chunks.chunk({ ...this.#base(), choices: [choice] }, timings, last);
  }

  #base() {
    const { id, created, model } = this.#frame;
    return { id, object: 'text_completion', created, model };
  }
}

function noLogprobs(): Logprobs {
  return { tokens: [], token_logprobs: [], top_logprobs: [], text_offset: [] };
}

function add(to: Logprobs, { token, logprob, top }: TokenLogprob, offset: number): void {
  to.tokens.push(token);
  to.text_offset.push(offset);
  to.token_logprobs.push(logprob === null ? null : finite(logprob));
  if (logprob === null) {
    to.top_logprobs.push(null);
    return;
  }
  const likeliest: Record<string, number> = {};
  // Of tokens that read alike, the likeliest.
  for (const one of [...top, { token, logprob }]) likeliest[one.token] ??= finite(one.logprob);
  to.top_logprobs.push(likeliest);
}

/** Where each token's text begins: a token that ends within a character begins where the character does. */
function addPrompt(to: Logprobs, prompt: readonly TokenLogprob[]): void {
  const decoder = new TextDecoder();
  let offset = 0;
  for (const one of prompt) {
    add(to, one, offset);
    offset += decoder.decode(Uint8Array.from(one.bytes), { stream: true }).length;
  }
}

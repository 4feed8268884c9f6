import type { ApiError } from '../http/error.js';
import type { ServerEvent } from '../http/events.js';
import type { TokenLogprob, ToolFormat } from '../model.js';
import type { AnswerPart, FinishReason } from '../text/answer.js';
import { callId } from '../tools/call-id.js';
import { type ToolParser, toolParser } from '../tools/parser.js';
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

export interface ChatWriterOptions extends ChunkOptions {
  readonly n: number;
  /** Whether log probabilities were asked for. */
  readonly logprobs: boolean;
  /** How to find the calls of tools; absent where the model may call none. */
  readonly tools?: { readonly format: ToolFormat; readonly names: readonly string[] };
  /** What the answer was made to begin with. */
  readonly answerStart: string;
}

type ChatFinish = FinishReason | 'tool_calls';

interface Call {
  readonly id: string;
  readonly type: 'function';
  readonly function: { readonly name: string; arguments: string };
}

interface Choice {
  readonly parser: ToolParser | undefined;
  readonly logprobs: object[];
  readonly calls: Call[];
  text: string;
  finish: ChatFinish | null;
  /** Log probabilities that no chunk has carried yet. */
  untold: object[];
}

/** `chat.completion`: a stream names the role first, and ends with an empty delta. */
export class ChatWriter implements Writer {
  readonly #frame: Frame;
  readonly #options: ChatWriterOptions;
  readonly #choices: Choice[];
  readonly #chunks: Chunks;

  constructor(frame: Frame, options: ChatWriterOptions) {
    this.#frame = frame;
    this.#options = options;
    this.#chunks = new Chunks(options);
    const { tools, answerStart } = options;
    this.#choices = Array.from({ length: options.n }, () => {
      const parser = tools === undefined ? undefined : toolParser(tools.format, tools.names);
      parser?.push(answerStart);
      return { parser, logprobs: [], calls: [], text: '', finish: null, untold: [] };
    });
  }

  opening(): ServerEvent[] {
    return this.#choices.map((_, index) =>
      this.#chunk(index, { role: 'assistant', content: '', refusal: null }),
    );
  }

  part(index: number, { text, logprobs, finishReason }: AnswerPart, timings?: () => Timings): ServerEvent[] {
    const choice = this.#choices[index] as Choice;
    const told = logprobs.map(chatLogprob);
    choice.logprobs.push(...told);
    choice.untold.push(...told);
    const deltas = this.#deltas(choice, text, finishReason !== undefined);
    const events = deltas.map((delta) => this.#chunk(index, delta, null, timings));
    if (finishReason === undefined) return events;
    choice.finish = finishReason === 'stop' && choice.calls.length > 0 ? 'tool_calls' : finishReason;
    return [...events, this.#chunk(index, {}, choice.finish, timings)];
  }

  closing(count: TokenCount): ServerEvent[] {
    return this.#chunks.closing(this.#base('chat.completion.chunk'), count);
  }

  failure(error: ApiError): ServerEvent[] {
    return this.#chunks.failure(error);
  }

  whole(count: TokenCount): object {
    return {
      ...this.#base('chat.completion'),
      choices: this.#choices.map(({ text, calls, logprobs, finish }, index) => ({
        index,
        message: {
          role: 'assistant',
          content: text === '' && calls.length > 0 ? null : text,
          refusal: null,
          ...(calls.length === 0 ? {} : { tool_calls: calls }),
        },
        logprobs: this.#options.logprobs ? { content: logprobs, refusal: null } : null,
        finish_reason: finish,
      })),
      usage: usageOf(count),
      ...timingsOf(count),
    };
  }

  #deltas(choice: Choice, text: string, over: boolean): object[] {
    const { parser, calls } = choice;
    if (parser === undefined) {
      choice.text += text;
      return text === '' ? [] : [{ content: text }];
    }
    return [...parser.push(text), ...(over ? parser.end() : [])].map((event) => {
      if (event.kind === 'text') {
        choice.text += event.text;
        return { content: event.text };
      }
      const { index } = event;
      if (event.kind === 'call') {
        const id = callId(this.#options.tools?.format);
        const made: Call = { id, type: 'function', function: { name: event.name, arguments: '' } };
        calls[index] = made;
        return { tool_calls: [{ index, ...made, function: { ...made.function } }] };
      }
      (calls[index] as Call).function.arguments += event.text;
      return { tool_calls: [{ index, function: { arguments: event.text } }] };
    });
  }

  #chunk(
    index: number,
    delta: object,
    finish_reason: ChatFinish | null = null,
    timings?: () => Timings,
  ): ServerEvent {
    const choice = this.#choices[index] as Choice;
    const content = choice.untold;
    choice.untold = [];
    const logprobs = content.length > 0 ? { content, refusal: null } : null;
    // Choices come one after the other.
    const last = finish_reason !== null && index === this.#choices.length - 1;
    return this.#chunks.chunk(
      { ...this.#base('chat.completion.chunk'), choices: [{ index, delta, logprobs, finish_reason }] },
      timings,
      last,
    );
  }

  #base(object: string) {
    const { id, created, model } = this.#frame;
    return { id, object, created, model };
  }
}

export function chatLogprob({ token, bytes, logprob, top }: TokenLogprob) {
  return {
    token,
    logprob: finite(logprob ?? 0),
    bytes,
    top_logprobs: top.map((one) => ({ token: one.token, logprob: finite(one.logprob), bytes: one.bytes })),
  };
}

import { randomUUID } from 'node:crypto';
import type { ApiError } from '../http/error.js';
import type { ServerEvent } from '../http/events.js';
import type { ToolFormat } from '../model.js';
import type { AnswerPart, FinishReason } from '../text/answer.js';
import { callId } from '../tools/call-id.js';
import { type ToolEvent, type ToolParser, toolParser } from '../tools/parser.js';
import { chatLogprob } from './chat-writer.js';
import { type Frame, type TokenCount, timingsOf, type Writer } from './writer.js';

export interface ResponseWriterOptions {
  /** What the response says again of the request. */
  readonly said: Readonly<Record<string, unknown>>;
  readonly logprobs: boolean;
  readonly tools?: { readonly format: ToolFormat; readonly names: readonly string[] };
  readonly answerStart: string;
}

interface MessageItem {
  readonly kind: 'message';
  readonly id: string;
  text: string;
  readonly logprobs: object[];
  done: boolean;
}

interface CallItem {
  readonly kind: 'call';
  readonly id: string;
  readonly callId: string;
  readonly name: string;
  text: string;
  done: boolean;
}

type Item = CallItem | MessageItem;

/** `response`: items, each opened, filled and closed by events with names and running numbers. */
export class ResponseWriter implements Writer {
  readonly #frame: Frame;
  readonly #options: ResponseWriterOptions;
  readonly #parser: ToolParser | undefined;
  readonly #items: Item[] = [];
  #finish: FinishReason | undefined;
  #number = 0;
  /** Log probabilities of text that is held back. */
  #untold: object[] = [];

  constructor(frame: Frame, options: ResponseWriterOptions) {
    this.#frame = frame;
    this.#options = options;
    const { tools, answerStart } = options;
    this.#parser = tools === undefined ? undefined : toolParser(tools.format, tools.names);
    this.#parser?.push(answerStart);
  }

  opening(): ServerEvent[] {
    const response = this.#response('in_progress');
    return [this.#event('response.created', { response }), this.#event('response.in_progress', { response })];
  }

  part(_choice: number, { text, logprobs, finishReason }: AnswerPart): ServerEvent[] {
    this.#untold.push(...logprobs.map(chatLogprob));
    const over = finishReason !== undefined;
    const plain: ToolEvent[] = text === '' ? [] : [{ kind: 'text', text }];
    const parsed =
      this.#parser === undefined ? plain : [...this.#parser.push(text), ...(over ? this.#parser.end() : [])];
    const events = parsed.flatMap((event) => this.#take(event));
    if (!over) return events;
    this.#finish = finishReason;
    // An answer of nothing is an empty message.
    if (this.#items.length === 0) events.push(...this.#open(newMessage()));
    return [...events, ...this.#close()];
  }

  closing(count: TokenCount): ServerEvent[] {
    const type = this.#finish === 'length' ? 'response.incomplete' : 'response.completed';
    return [this.#event(type, { response: this.whole(count) })];
  }

  failure({ code, message }: ApiError, count: TokenCount): ServerEvent[] {
    const response = { ...this.#response('failed', count), error: { code, message } };
    return [this.#event('response.failed', { response })];
  }

  whole(count: TokenCount) {
    return this.#response(this.#finish === 'length' ? 'incomplete' : 'completed', count);
  }

  #take(event: ToolEvent): ServerEvent[] {
    if (event.kind === 'call') {
      const { name } = event;
      const id = callId(this.#options.tools?.format);
      const call: CallItem = { kind: 'call', id: newId('fc'), callId: id, name, text: '', done: false };
      return [...this.#close(), ...this.#open(call)];
    }
    const open = this.#items.at(-1);
    if (event.kind === 'arguments') {
      const call = open as CallItem;
      call.text += event.text;
      return [
        this.#event('response.function_call_arguments.delta', { ...this.#at(call), delta: event.text }),
      ];
    }
    const opening =
      open?.kind === 'message' && !open.done ? [] : [...this.#close(), ...this.#open(newMessage())];
    const message = this.#items.at(-1) as MessageItem;
    message.text += event.text;
    const logprobs = this.#options.logprobs ? this.#untold : [];
    this.#untold = [];
    message.logprobs.push(...logprobs);
    return [
      ...opening,
      this.#event('response.output_text.delta', {
        ...this.#at(message),
        content_index: 0,
        delta: event.text,
        logprobs,
      }),
    ];
  }

  #open(item: Item): ServerEvent[] {
    this.#items.push(item);
    const output_index = this.#items.length - 1;
    const added = this.#event('response.output_item.added', { output_index, item: this.#itemOf(item) });
    if (item.kind === 'call') return [added];
    const part = { type: 'output_text', text: '', annotations: [], logprobs: [] };
    return [added, this.#event('response.content_part.added', { ...this.#at(item), content_index: 0, part })];
  }

  /** Ends the item that is open, if there is one. */
  #close(): ServerEvent[] {
    const item = this.#items.at(-1);
    if (item === undefined || item.done) return [];
    item.done = true;
    const at = this.#at(item);
    const { output_index } = at;
    const done = () => this.#event('response.output_item.done', { output_index, item: this.#itemOf(item) });
    if (item.kind === 'call') {
      const { name, text } = item;
      return [this.#event('response.function_call_arguments.done', { ...at, name, arguments: text }), done()];
    }
    const { text, logprobs } = item;
    return [
      this.#event('response.output_text.done', { ...at, content_index: 0, text, logprobs }),
      this.#event('response.content_part.done', { ...at, content_index: 0, part: partOf(item) }),
      done(),
    ];
  }

  #at(item: Item) {
    return { item_id: item.id, output_index: this.#items.indexOf(item) };
  }

  #itemOf(item: Item): object {
    const cut = this.#finish === 'length' && item === this.#items.at(-1);
    const status = item.done ? (cut ? 'incomplete' : 'completed') : 'in_progress';
    if (item.kind === 'call') {
      const { id, name } = item;
      return { type: 'function_call', id, call_id: item.callId, name, arguments: item.text, status };
    }
    const content = item.done ? [partOf(item)] : [];
    return { type: 'message', id: item.id, role: 'assistant', status, content };
  }

  #event(type: string, fields: object): ServerEvent {
    return { name: type, data: { type, sequence_number: this.#number++, ...fields } };
  }

  #response(status: 'completed' | 'failed' | 'in_progress' | 'incomplete', count?: TokenCount) {
    const { id, created, model } = this.#frame;
    return {
      id,
      object: 'response',
      created_at: created,
      status,
      background: false,
      error: null,
      incomplete_details: status === 'incomplete' ? { reason: 'max_output_tokens' } : null,
      model,
      output: status === 'in_progress' ? [] : this.#items.map((item) => this.#itemOf(item)),
      previous_response_id: null,
      reasoning: { effort: null, summary: null },
      store: false,
      truncation: 'disabled',
      ...this.#options.said,
      usage: count === undefined ? null : usage(count),
      ...(count === undefined ? {} : timingsOf(count)),
    };
  }
}

function usage({ prompt, completion, cached }: TokenCount) {
  return {
    input_tokens: prompt,
    input_tokens_details: { cached_tokens: cached, cache_write_tokens: 0 },
    output_tokens: completion,
    output_tokens_details: { reasoning_tokens: 0 },
    total_tokens: prompt + completion,
  };
}

function newMessage(): MessageItem {
  return { kind: 'message', id: newId('msg'), text: '', logprobs: [], done: false };
}

function partOf({ text, logprobs }: MessageItem) {
  return { type: 'output_text', text, annotations: [], logprobs };
}

function newId(prefix: string): string {
  return `${prefix}_${randomUUID().replaceAll('-', '')}`;
}

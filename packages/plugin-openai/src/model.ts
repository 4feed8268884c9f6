import { CqilError } from '@cqil/core';

/** A message of a chat, as chat templates take it. */
export interface ChatMessage {
  readonly role: 'assistant' | 'system' | 'tool' | 'user';
  readonly content: string;
  /** What the assistant called; its content is then often empty. */
  readonly tool_calls?: readonly ChatToolCall[];
  /** Of a tool's answer: the call that it answers. */
  readonly tool_call_id?: string;
  /** Of a tool's answer: the function that gave it. */
  readonly name?: string;
}

export interface ChatToolCall {
  readonly id: string;
  readonly type: 'function';
  readonly function: {
    readonly name: string;
    /** An object where the arguments were one; templates write it as JSON themselves. */
    readonly arguments: unknown;
  };
}

/** A function that the model may call, as chat templates take it. */
export interface ChatTool {
  readonly type: 'function';
  readonly function: {
    readonly name: string;
    readonly description?: string;
    /** A JSON Schema of an object. */
    readonly parameters?: JsonSchema;
  };
}

export type JsonSchema = Readonly<Record<string, unknown>>;

/**
 * How a model writes the calls of tools.
 *
 * - `hermes`: `<tool_call>{"name": …, "arguments": …}</tool_call>` for each (Hermes, Qwen)
 * - `llama`: the answer is one object, `{"name": …, "parameters": …}` (Llama 3.1 and later)
 * - `mistral`: `[TOOL_CALLS] [{"name": …, "arguments": …}, …]`
 */
export type ToolFormat = 'hermes' | 'llama' | 'mistral';

/** Long texts may be read elsewhere meanwhile. */
export type Tokens = readonly number[] | Promise<readonly number[]>;

export interface EncodeOptions {
  /** Without it, a text has no tokens that begin or end any text. `true` when absent. */
  readonly special?: boolean;
  /** Ends the reading of a text that nobody waits for. */
  readonly signal?: AbortSignal;
}

export interface ChatOptions {
  readonly signal?: AbortSignal;
  readonly tools?: readonly ChatTool[];
  /** Text that the assistant's answer is made to begin with. */
  readonly answerStart?: string;
}

export interface TextRequest {
  /** The prompt's tokens, at least one. */
  readonly promptIds: readonly number[];
  /** The most tokens to generate; 0 only together with `promptLogprobs`. */
  readonly maxTokens: number;
  /** 0 takes the most likely token. */
  readonly temperature: number;
  /** Nucleus sampling: more than 0, at most 1. */
  readonly topP: number;
  readonly topK?: number;
  /** Leaves out tokens less likely than this share of the most likely one's probability. */
  readonly minP?: number;
  /** Divides the positive logits of tokens that have occurred, and multiplies the negative ones; 1 does nothing. */
  readonly repetitionPenalty?: number;
  /** Taken from the logit of every token that has been generated. */
  readonly presencePenalty?: number;
  /** Taken from a token's logit for each time that it has been generated. */
  readonly frequencyPenalty?: number;
  /** Added to the logits, by token. */
  readonly logitBias?: ReadonlyMap<number, number>;
  readonly seed: number;
  /** Asks for each token's log probability, and those of so many of the likeliest. */
  readonly logprobs?: number;
  /** Asks for the same of the prompt's tokens. */
  readonly promptLogprobs?: boolean;
  /** The text must be JSON of this schema; one that `checkSchema` has taken. */
  readonly schema?: JsonSchema;
  /** Ends the generation within one token. */
  readonly signal: AbortSignal;
}

/** A token as a client reads it. */
export interface TokenText {
  /** The token's text; of a token that is no whole characters `bytes:\xe4\xb8`. */
  readonly token: string;
  /** UTF-8. */
  readonly bytes: readonly number[];
}

export interface TokenLogprob extends TokenText {
  /** The natural logarithm of the probability. `null` for a text's first token, which nothing predicts. */
  readonly logprob: number | null;
  /** The likeliest tokens at this place, likeliest first. */
  readonly top: readonly (TokenText & { readonly logprob: number })[];
}

/** What the next token brings. */
export interface TextPiece {
  /** Whole characters only; empty while a character's last bytes are still to come. */
  readonly text: string;
  /** How many tokens this piece took: 1, or 0 for a piece without one. */
  readonly tokens: number;
  /** Of this piece's token, when asked for; not of an end token. */
  readonly logprob?: TokenLogprob;
  /** Tokens of the prompt that need not be read, being known from an earlier request; on a first piece of its own. */
  readonly cachedTokens?: number;
  /** Where tokens are drafted and checked several at a time: how many were up to here, and how many were right. */
  readonly drafts?: { readonly drafted: number; readonly accepted: number };
  /** Of the prompt's tokens, when asked for; on a first piece of its own. */
  readonly prompt?: readonly TokenLogprob[];
  /** On the last piece: `stop` for an end token, `length` for `maxTokens`. */
  readonly finishReason?: 'length' | 'stop';
}

/**
 * What a model throws when it cannot go on at all, whatever it is asked: the worker that computed is gone, or its memory.
 * The request gets status 500 with the code `model_lost`, and so do the others that use the model; the next one finds it
 * opened anew.
 */
export class ModelLostError extends CqilError {
  override readonly name = 'ModelLostError';

  constructor(message: string, options: { readonly cause?: unknown } = {}) {
    super('MODEL_LOST', message, { hint: 'ask again: the model is opened anew', ...options });
  }
}

/**
 * A language model that can be served. Never more calls of `generate` go on at the same time than `concurrency` says.
 *
 * What a model leaves out of the optional members it cannot do, and requests that need it are refused.
 */
export interface TextModel {
  /** The name by which requests ask for it. */
  readonly id: string;
  /** When the model was made, in seconds since 1970. */
  readonly created: number;
  /** The most tokens that prompt and answer have together. */
  readonly contextLength: number;
  /** Calls of `generate` that may go on at the same time; 1 when absent. */
  readonly concurrency?: number;
  /** What the model takes in memory now, its caches included. */
  readonly bytes?: number;
  /** Token ids are below this. Where it is known, ids that clients give are checked. */
  readonly vocabularySize?: number;
  /** Absent: the chat template takes no tools. */
  readonly toolFormat?: ToolFormat;
  /** Whether `logprobs` and `promptLogprobs` are heeded. */
  readonly logprobs?: boolean;
  /** The tokens of a chat, up to where the assistant's answer starts, or with its start. */
  encodeChat(messages: readonly ChatMessage[], options?: ChatOptions): Tokens;
  /** The tokens of a text to be continued. */
  encode(text: string, options?: EncodeOptions): Tokens;
  /** The text of tokens, special ones left out unless `special` is true. */
  decode?(ids: readonly number[], options?: { readonly special?: boolean }): string;
  /** @throws Error that says what in a schema cannot be held to */
  checkSchema?(schema: JsonSchema): Promise<void>;
  /** The mean of the last hidden states over the tokens. */
  embed?(ids: readonly number[], signal: AbortSignal): Promise<Float32Array>;
  /** One piece for each token, an end token included. Ending the iteration early ends the generation. */
  generate(request: TextRequest): AsyncIterable<TextPiece>;
}

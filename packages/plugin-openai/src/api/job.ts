import { randomInt } from 'node:crypto';
import { ApiError, badRequest, unsupported } from '../http/error.js';
import {
  type ChatOptions,
  type JsonSchema,
  ModelLostError,
  type TextModel,
  type TextRequest,
  type Tokens,
  type ToolFormat,
} from '../model.js';
import { ARGUMENTS_KEY, CALL_START } from '../tools/parser.js';
import type { Limits } from './limits.js';
import type { Sampling } from './sampling.js';
import { callSchema, type Tooling } from './tools.js';
import type { Frame, Writer } from './writer.js';

/** Leaves room for the seeds of further choices. */
const LARGEST_SEED = 2 ** 52;

/** What one choice is generated from. */
export type ChoiceRequest = Omit<TextRequest, 'signal'>;

/** A request that has been found good: what to generate, and how to say it. */
export interface Job {
  readonly writer: Writer;
  /** One for each choice. */
  readonly choices: readonly ChoiceRequest[];
  readonly stop: readonly string[];
  /** Of all prompts together; a prompt that is answered several times counts once. */
  readonly promptTokens: number;
}

/** One of the interfaces that generate text. */
export interface Endpoint<P extends { readonly model: string; readonly stream: boolean }> {
  readonly idPrefix: string;
  /** @throws ApiError 400 that names the parameter */
  parameters(body: unknown, limits: Limits): P;
  /** @throws ApiError 400 for what this model cannot do */
  job(model: TextModel, parameters: P, frame: Frame, signal: AbortSignal): Promise<Job>;
  /** What a log may hold of the prompt, if it may hold it. */
  prompt(parameters: P): unknown;
}

export interface Wanted {
  readonly n: number;
  readonly logprobs: number | undefined;
  readonly promptLogprobs?: boolean;
  readonly schema: JsonSchema | undefined;
  /** The parameter that the prompt comes from. */
  readonly param: string;
  /** Tokens to generate when the request does not say; what the context has room for when absent. */
  readonly defaultTokens?: number;
}

/**
 * The choices for one prompt.
 *
 * @throws ApiError 400 `context_length_exceeded` with `n_prompt_tokens` and `n_ctx`; 400 for what the model cannot do
 */
export function choicesFor(
  model: TextModel,
  promptIds: readonly number[],
  sampling: Sampling,
  wanted: Wanted,
): ChoiceRequest[] {
  const { param, logprobs, schema, promptLogprobs = false } = wanted;
  if (promptIds.length === 0) throw badRequest('The prompt is empty.', param, 'empty_prompt');
  if (logprobs !== undefined && model.logprobs !== true) {
    throw unsupported('logprobs', 'this model tells no log probabilities');
  }
  checkIds(model, sampling.logitBias.keys(), 'logit_bias');
  const maxTokens = tokensFor(model, promptIds.length, sampling.maxTokens, wanted);
  const seed = (sampling.seed ?? randomInt(2 ** 32)) % LARGEST_SEED;
  return Array.from({ length: wanted.n }, (_, i) => ({
    promptIds,
    maxTokens,
    temperature: sampling.temperature,
    topP: sampling.topP,
    // Each choice has a seed of its own, or all would be the same.
    seed: seed + i,
    presencePenalty: sampling.presencePenalty,
    frequencyPenalty: sampling.frequencyPenalty,
    logitBias: sampling.logitBias,
    ...(sampling.topK === undefined ? {} : { topK: sampling.topK }),
    ...(sampling.minP === undefined ? {} : { minP: sampling.minP }),
    ...(sampling.repetitionPenalty === undefined ? {} : { repetitionPenalty: sampling.repetitionPenalty }),
    ...(logprobs === undefined ? {} : { logprobs }),
    ...(promptLogprobs ? { promptLogprobs } : {}),
    ...(schema === undefined ? {} : { schema }),
  }));
}

/** @throws ApiError 400 for a token that the model does not have */
export function checkIds(model: TextModel, ids: Iterable<number>, param: string): void {
  const { vocabularySize = Number.POSITIVE_INFINITY } = model;
  for (const id of ids) {
    if (id >= vocabularySize) {
      throw badRequest(
        `The model has no token ${id}: ids are below ${vocabularySize}.`,
        param,
        'invalid_token',
      );
    }
  }
}

function tokensFor(
  model: TextModel,
  promptTokens: number,
  asked: number | undefined,
  { defaultTokens, param }: Wanted,
): number {
  const room = model.contextLength - promptTokens;
  if (room >= (asked ?? 1)) return asked ?? Math.min(room, defaultTokens ?? room);
  throw contextExceeded(model, promptTokens, asked, param);
}

export function contextExceeded(
  model: TextModel,
  promptTokens: number,
  asked: number | undefined,
  param: string,
): ApiError {
  return badRequest(
    `The model's context is ${model.contextLength} tokens; the prompt has ${promptTokens}` +
      (asked === undefined ? '.' : ` and ${asked} are asked for.`),
    param,
    'context_length_exceeded',
    { n_prompt_tokens: promptTokens, n_ctx: model.contextLength },
  );
}

/** A prompt that the template or the tokenizer refuses is the client's to change. */
export async function encoded(
  param: string,
  signal: AbortSignal,
  encode: () => Tokens,
): Promise<readonly number[]> {
  try {
    return await encode();
  } catch (cause) {
    if (cause instanceof ApiError || cause instanceof ModelLostError || signal.aborted) throw cause;
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw badRequest(`The model does not take the ${param}: ${reason}`, param);
  }
}

/** What tools make of a chat. */
export interface ToolPlan {
  readonly chat: ChatOptions;
  readonly answerStart: string;
  /** A call that must be made leaves no other text. */
  readonly schema: JsonSchema | undefined;
  readonly parse: { readonly tools?: { readonly format: ToolFormat; readonly names: readonly string[] } };
}

/** @throws ApiError 400 where the model takes no tools */
export async function planTools(model: TextModel, { tools, choice, callable }: Tooling): Promise<ToolPlan> {
  if (tools.length === 0 || choice === 'none') {
    return { chat: {}, answerStart: '', schema: undefined, parse: {} };
  }
  const format = model.toolFormat;
  if (format === undefined) throw unsupported('tools', "the model's chat template takes none");
  const forced = choice === 'required';
  const schema = forced ? callSchema(callable, ARGUMENTS_KEY[format]) : undefined;
  if (schema !== undefined) await checkSchema(model, schema, 'tools');
  const answerStart = forced ? CALL_START[format] : '';
  return {
    chat: { tools, ...(answerStart === '' ? {} : { answerStart }) },
    answerStart,
    schema,
    parse: { tools: { format, names: tools.map((tool) => tool.function.name) } },
  };
}

/** @throws ApiError 400 for a schema that the model cannot be held to */
export async function checkSchema(model: TextModel, schema: JsonSchema, param: string): Promise<void> {
  if (model.checkSchema === undefined) throw unsupported(param, 'this model cannot be held to a schema');
  try {
    await model.checkSchema(schema);
  } catch (cause) {
    if (cause instanceof ModelLostError) throw cause;
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw badRequest(`The schema cannot be used: ${reason}`, param, 'invalid_json_schema');
  }
}

import { z } from 'zod';
import { badRequest, unsupported } from '../http/error.js';
import type { ChatMessage, ChatToolCall, JsonSchema } from '../model.js';
import { cap, type Limits } from './limits.js';
import { parse, type Unsupported } from './parse.js';
import {
  count,
  metadataSchema,
  type Sampling,
  type Streaming,
  sampling,
  samplingSchema,
  streaming,
  streamSchema,
} from './sampling.js';
import { functionName, functionSchema, jsonObject, limitSchema, type Tooling, tooling } from './tools.js';

export interface ChatParameters extends Sampling, Streaming, Tooling {
  readonly model: string;
  readonly messages: readonly ChatMessage[];
  readonly n: number;
  /** How many of the likeliest tokens to tell of at each place; without it, no log probabilities. */
  readonly logprobs: number | undefined;
  /** The answer must be JSON of this schema. */
  readonly schema: JsonSchema | undefined;
}

const REFUSED: Unsupported = {
  audio: [],
  function_call: ['auto', 'none'],
  functions: [],
  modalities: [['text']],
  moderation: [],
  prediction: [],
  reasoning_effort: ['none'],
  service_tier: ['auto', 'default'],
  store: [false],
  verbosity: ['medium'],
  web_search_options: [],
};

const part = z.object({ type: z.string(), text: z.string().optional() });
const content = z.union([z.string(), z.array(part).min(1)]);
const toolCall = z.object({
  id: z.string(),
  type: z.literal('function').default('function'),
  function: z.object({ name: functionName, arguments: z.string() }),
});
const message = z.discriminatedUnion('role', [
  z.object({ role: z.enum(['system', 'developer', 'user']), content }),
  z.object({
    role: z.literal('assistant'),
    content: content.nullish(),
    tool_calls: z.array(toolCall).min(1).nullish(),
    audio: z.null('is not supported').optional(),
    function_call: z.null('is not supported').optional(),
  }),
  z.object({ role: z.literal('tool'), content, tool_call_id: z.string() }),
]);

/** `response_format`, and `text.format` of the responses' interface. */
export const plainFormat = z.object({ type: z.enum(['text', 'json_object']) });
const responseFormat = z.discriminatedUnion('type', [
  plainFormat,
  z.object({
    type: z.literal('json_schema'),
    json_schema: z.object({
      name: functionName,
      schema: jsonObject.optional(),
      strict: z.boolean().nullish(),
    }),
  }),
]);
const namedChoice = z.object({ type: z.literal('function'), function: z.object({ name: z.string() }) });

const chatSchema = z.object({
  ...samplingSchema,
  ...streamSchema,
  model: z.string(),
  messages: z.array(message).min(1),
  max_tokens: count.nullish(),
  max_completion_tokens: count.nullish(),
  n: count.nullish(),
  logprobs: z.boolean().nullish(),
  top_logprobs: z.number().int().min(0).nullish(),
  response_format: responseFormat.nullish(),
  tools: z.array(z.object({ type: z.literal('function'), function: functionSchema })).nullish(),
  tool_choice: z.union([z.enum(['none', 'auto', 'required']), namedChoice]).nullish(),
  parallel_tool_calls: z.boolean().nullish(),
  metadata: metadataSchema.nullish(),
});

/** @throws ApiError 400 that names the parameter */
export function chatParameters(body: unknown, limits: Limits): ChatParameters {
  const request = parse(chatSchema, body, REFUSED);
  const { n, messages, top_logprobs, tool_choice } = request;
  if (request.max_completion_tokens != null && request.max_tokens != null) {
    throw badRequest('Give max_completion_tokens or max_tokens, not both.', 'max_tokens');
  }
  if (top_logprobs != null && request.logprobs !== true) {
    throw badRequest('top_logprobs is for requests with logprobs: true.', 'top_logprobs');
  }
  cap(messages.length, limits.messages, 'messages', 'messages');
  cap(n ?? 1, limits.choices, 'n', 'choices');
  cap(top_logprobs ?? 0, limits.topLogprobs, 'top_logprobs', 'tokens');
  const choice = typeof tool_choice === 'object' && tool_choice !== null ? tool_choice.function : tool_choice;
  const tools = tooling(
    (request.tools ?? []).map((tool) => tool.function),
    choice ?? undefined,
    limits,
  );
  const schema = schemaOf(request.response_format ?? { type: 'text' }, limits);
  if (schema !== undefined && tools.choice === 'required') {
    throw badRequest('A required tool call leaves no room for a response_format.', 'response_format');
  }
  return {
    ...sampling(request, request.max_completion_tokens ?? request.max_tokens ?? undefined, limits),
    ...streaming(request),
    ...tools,
    model: request.model,
    messages: messagesOf(messages),
    n: n ?? 1,
    logprobs: request.logprobs === true ? (top_logprobs ?? 0) : undefined,
    schema,
  };
}

export const ANY_OBJECT: JsonSchema = { type: 'object' };

function schemaOf(format: z.infer<typeof responseFormat>, limits: Limits): JsonSchema | undefined {
  if (format.type !== 'json_schema') return format.type === 'text' ? undefined : ANY_OBJECT;
  const { schema = ANY_OBJECT } = format.json_schema;
  limitSchema(schema, limits, 'response_format.json_schema.schema');
  return schema;
}

function messagesOf(messages: readonly z.infer<typeof message>[]): ChatMessage[] {
  const names = new Map<string, string>();
  return messages.map((given, i): ChatMessage => {
    const text = textOf(given.content ?? '', `messages[${i}].content`);
    if (given.role === 'tool') {
      const name = names.get(given.tool_call_id);
      return {
        role: 'tool',
        content: text,
        tool_call_id: given.tool_call_id,
        ...(name === undefined ? {} : { name }),
      };
    }
    // Templates know the role under its older name.
    if (given.role !== 'assistant')
      return { role: given.role === 'developer' ? 'system' : given.role, content: text };
    const calls = (given.tool_calls ?? []).map((call): ChatToolCall => {
      names.set(call.id, call.function.name);
      return {
        id: call.id,
        type: 'function',
        function: { name: call.function.name, arguments: argumentsOf(call.function.arguments) },
      };
    });
    if (given.content == null && calls.length === 0) {
      throw badRequest('An assistant message has content or tool_calls.', `messages[${i}].content`);
    }
    return { role: 'assistant', content: text, ...(calls.length === 0 ? {} : { tool_calls: calls }) };
  });
}

/** Templates write arguments as JSON: what is JSON already must not be written twice. */
export function argumentsOf(text: string): unknown {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? value : text;
  } catch {
    return text;
  }
}

const TEXT_PARTS = ['text', 'input_text', 'output_text', 'refusal'];

/** The text of a message's parts. Parts of other kinds are named and refused. */
export function textOf(given: z.infer<typeof content>, param: string): string {
  if (typeof given === 'string') return given;
  return given
    .map(({ type, text }, i) => {
      if (!TEXT_PARTS.includes(type))
        throw unsupported(`${param}[${i}].type`, `this model reads text, not ${type}`);
      if (text === undefined) throw badRequest('A part of a message has no text.', `${param}[${i}].text`);
      return text;
    })
    .join('');
}

export const contentSchema = content;

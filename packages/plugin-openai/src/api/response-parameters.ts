import { z } from 'zod';
import { badRequest, unsupported } from '../http/error.js';
import type { ChatMessage, ChatToolCall, JsonSchema } from '../model.js';
import { ANY_OBJECT, argumentsOf, contentSchema, plainFormat, textOf } from './chat-parameters.js';
import { cap, type Limits } from './limits.js';
import { parse, type Unsupported } from './parse.js';
import { count, metadataSchema, type Sampling, sampling, samplingSchema } from './sampling.js';
import { functionName, functionSchema, jsonObject, limitSchema, type Tooling, tooling } from './tools.js';

export interface ResponseParameters extends Sampling, Tooling {
  readonly model: string;
  readonly messages: readonly ChatMessage[];
  readonly logprobs: number | undefined;
  readonly schema: JsonSchema | undefined;
  readonly stream: boolean;
  /** What the response's object says again of the request. */
  readonly said: Readonly<Record<string, unknown>>;
}

const REFUSED: Unsupported = {
  background: [false],
  context_management: [[]],
  conversation: [],
  max_tool_calls: [],
  moderation: [],
  previous_response_id: [],
  prompt: [],
  reasoning: [{}, { effort: 'none' }],
  service_tier: ['auto', 'default'],
  store: [false],
  truncation: ['disabled'],
};

const message = z.object({
  type: z.literal('message').optional(),
  role: z.enum(['system', 'developer', 'user', 'assistant']),
  content: contentSchema,
});
const functionCall = z.object({
  type: z.literal('function_call'),
  call_id: z.string(),
  name: functionName,
  arguments: z.string(),
});
const functionOutput = z.object({
  type: z.literal('function_call_output'),
  call_id: z.string(),
  output: contentSchema,
});
const format = z.discriminatedUnion('type', [
  plainFormat,
  z.object({
    type: z.literal('json_schema'),
    name: functionName,
    schema: jsonObject,
    strict: z.boolean().nullish(),
  }),
]);

const responseSchema = z.object({
  temperature: samplingSchema.temperature,
  top_p: samplingSchema.top_p,
  top_k: samplingSchema.top_k,
  min_p: samplingSchema.min_p,
  seed: samplingSchema.seed,
  model: z.string(),
  input: z.union([
    z.string(),
    z
      .array(
        z.unknown().transform((item, context) => {
          const { type } = (item ?? {}) as { type?: unknown };
          const schema =
            type === 'function_call'
              ? functionCall
              : type === 'function_call_output'
                ? functionOutput
                : message;
          const parsed = schema.safeParse(item);
          if (parsed.success) return parsed.data;
          for (const { path, message: why } of parsed.error.issues)
            context.addIssue({ code: 'custom', path: [...path], message: why });
          return z.NEVER;
        }),
      )
      .min(1),
  ]),
  instructions: z.string().nullish(),
  max_output_tokens: count.nullish(),
  top_logprobs: z.number().int().min(0).nullish(),
  include: z.array(z.string()).nullish(),
  text: z.object({ format: format.nullish(), verbosity: z.literal('medium').nullish() }).nullish(),
  tools: z.array(z.object({ type: z.string() }).loose()).nullish(),
  tool_choice: z
    .union([
      z.enum(['none', 'auto', 'required']),
      z.object({ type: z.literal('function'), name: z.string() }),
    ])
    .nullish(),
  parallel_tool_calls: z.boolean().nullish(),
  stream: z.boolean().nullish(),
  stream_options: z.object({ include_obfuscation: z.boolean().nullish() }).nullish(),
  metadata: metadataSchema.nullish(),
});

type Item = Exclude<z.infer<typeof responseSchema>['input'], string>[number];

const LOGPROBS = 'message.output_text.logprobs';

/** @throws ApiError 400 that names the parameter */
export function responseParameters(body: unknown, limits: Limits): ResponseParameters {
  const request = parse(responseSchema, body, REFUSED);
  const { input, instructions, top_logprobs, text } = request;
  for (const [i, one] of (request.include ?? []).entries()) {
    // What a stateless answer never holds can be asked for.
    if (one !== LOGPROBS && one !== 'reasoning.encrypted_content') throw unsupported(`include[${i}]`);
  }
  cap(top_logprobs ?? 0, limits.topLogprobs, 'top_logprobs', 'tokens');
  const asked = request.tools ?? [];
  const functions = asked.map((tool, i) => {
    if (tool.type !== 'function') throw unsupported(`tools[${i}].type`, 'only functions are');
    return parseAt(functionSchema, tool, `tools[${i}]`);
  });
  const choice = request.tool_choice ?? undefined;
  const tools = tooling(functions, choice, limits);
  const schema = schemaOf(text?.format ?? { type: 'text' }, limits);
  if (schema !== undefined && tools.choice === 'required') {
    throw badRequest('A required tool call leaves no room for a text.format.', 'text.format');
  }
  const items = typeof input === 'string' ? [{ role: 'user' as const, content: input }] : input;
  cap(items.length, limits.messages, 'input', 'items');
  const messages = messagesOf(items);
  const wanted = request.include?.includes(LOGPROBS) === true || (top_logprobs ?? 0) > 0;
  return {
    ...sampling({ ...request, stop: null }, request.max_output_tokens ?? undefined, limits),
    ...tools,
    model: request.model,
    messages: instructions == null ? messages : [{ role: 'system', content: instructions }, ...messages],
    logprobs: wanted ? (top_logprobs ?? 0) : undefined,
    schema,
    stream: request.stream ?? false,
    said: {
      instructions: instructions ?? null,
      max_output_tokens: request.max_output_tokens ?? null,
      metadata: request.metadata ?? {},
      parallel_tool_calls: request.parallel_tool_calls ?? true,
      temperature: request.temperature ?? 1,
      text: { format: text?.format ?? { type: 'text' } },
      tool_choice: choice ?? 'auto',
      tools: functions.map((tool) => ({
        type: 'function',
        ...tool,
        parameters: tool.parameters ?? null,
        strict: tool.strict ?? false,
      })),
      top_logprobs: top_logprobs ?? 0,
      top_p: request.top_p ?? 1,
    },
  };
}

function parseAt<T>(schema: z.ZodType<T>, value: unknown, at: string): T {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw badRequest(
    `The parameter ${at} is not valid: ${issue?.message}`,
    [at, ...(issue?.path ?? [])].join('.'),
  );
}

function schemaOf(given: z.infer<typeof format>, limits: Limits): JsonSchema | undefined {
  if (given.type !== 'json_schema') return given.type === 'text' ? undefined : ANY_OBJECT;
  limitSchema(given.schema, limits, 'text.format.schema');
  return given.schema;
}

function messagesOf(items: readonly Item[]): ChatMessage[] {
  const names = new Map<string, string>();
  const messages: ChatMessage[] = [];
  for (const [i, item] of items.entries()) {
    if ('output' in item) {
      const name = names.get(item.call_id);
      messages.push({
        role: 'tool',
        content: textOf(item.output, `input[${i}].output`),
        tool_call_id: item.call_id,
        ...(name === undefined ? {} : { name }),
      });
    } else if ('arguments' in item) {
      names.set(item.call_id, item.name);
      const call: ChatToolCall = {
        id: item.call_id,
        type: 'function',
        function: { name: item.name, arguments: argumentsOf(item.arguments) },
      };
      // Calls and what the assistant said before them are one message to a template.
      const last = messages.at(-1);
      const before = last?.role === 'assistant' ? messages.pop() : undefined;
      messages.push({
        role: 'assistant',
        content: before?.content ?? '',
        tool_calls: [...(before?.tool_calls ?? []), call],
      });
    } else {
      messages.push({
        role: item.role === 'developer' ? 'system' : item.role,
        content: textOf(item.content, `input[${i}].content`),
      });
    }
  }
  return messages;
}

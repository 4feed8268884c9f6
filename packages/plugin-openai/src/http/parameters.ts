import { z } from 'zod';
import type { ChatMessage } from '../model.js';
import { badRequest } from './error.js';

/** What both kinds of request come to. */
interface Sampling {
  readonly model: string;
  readonly maxTokens: number | undefined;
  readonly temperature: number;
  readonly topP: number;
  readonly seed: number | undefined;
  readonly stop: readonly string[];
  readonly stream: boolean;
  readonly includeUsage: boolean;
}

export interface ChatParameters extends Sampling {
  readonly messages: readonly ChatMessage[];
}

export interface CompletionParameters extends Sampling {
  readonly prompt: string;
}

const count = z.number().int().min(1);
const stop = z.union([z.string().min(1), z.array(z.string().min(1)).max(4)]);

/** What both requests may hold. `null` stands for the default, as with OpenAI. */
const common = {
  model: z.string(),
  max_tokens: count.nullish(),
  temperature: z.number().min(0).max(2).nullish(),
  top_p: z.number().min(0).max(1).nullish(),
  seed: z.number().int().nullish(),
  stop: stop.nullish(),
  stream: z.boolean().nullish(),
  stream_options: z
    .strictObject({ include_usage: z.boolean().nullish(), include_obfuscation: z.literal(false).nullish() })
    .nullish(),
  // These name the caller to the server's owner; they do not touch the answer.
  user: z.string().nullish(),
};

const content = z.union([
  z.string(),
  z.array(z.strictObject({ type: z.literal('text'), text: z.string() })).min(1),
]);

const chatSchema = z.strictObject({
  ...common,
  messages: z
    .array(z.strictObject({ role: z.enum(['system', 'developer', 'user', 'assistant']), content }))
    .min(1),
  max_completion_tokens: count.nullish(),
  safety_identifier: z.string().nullish(),
  prompt_cache_key: z.string().nullish(),
});

const completionSchema = z.strictObject({
  ...common,
  // One text; several at once, and tokens, are not supported.
  prompt: z.union([z.string(), z.array(z.string()).length(1)]),
});

/**
 * Parameters of OpenAI's interface that are not supported, and the one value of each that asks for nothing:
 * clients like to send defaults.
 */
const NEUTRAL: Readonly<Record<string, unknown>> = {
  n: 1,
  best_of: 1,
  echo: false,
  frequency_penalty: 0,
  presence_penalty: 0,
  logprobs: false,
  store: false,
  response_format: { type: 'text' },
  modalities: ['text'],
};

/** @throws ApiError 400 that names the parameter */
export function chatParameters(body: unknown): ChatParameters {
  const request = parse(chatSchema, body);
  if (request.max_completion_tokens != null && request.max_tokens != null) {
    throw badRequest('Give max_completion_tokens or max_tokens, not both.', 'max_tokens');
  }
  return {
    ...sampling(request),
    maxTokens: request.max_completion_tokens ?? request.max_tokens ?? undefined,
    messages: request.messages.map(({ role, content: given }) => ({
      // Templates know the role under its older name.
      role: role === 'developer' ? 'system' : role,
      content: typeof given === 'string' ? given : given.map(({ text }) => text).join(''),
    })),
  };
}

/** @throws ApiError 400 that names the parameter */
export function completionParameters(body: unknown): CompletionParameters {
  const request = parse(completionSchema, body);
  return { ...sampling(request), prompt: [request.prompt].flat().join('') };
}

function sampling(request: z.infer<z.ZodObject<typeof common>>): Sampling {
  if (request.stream_options != null && request.stream !== true) {
    throw badRequest('stream_options is for requests with stream: true.', 'stream_options');
  }
  const given = request.stop ?? [];
  return {
    model: request.model,
    maxTokens: request.max_tokens ?? undefined,
    // A nucleus of nothing is the most likely token.
    temperature: request.top_p === 0 ? 0 : (request.temperature ?? 1),
    topP: request.top_p === 0 ? 1 : (request.top_p ?? 1),
    seed: request.seed ?? undefined,
    stop: typeof given === 'string' ? [given] : given,
    stream: request.stream ?? false,
    includeUsage: request.stream_options?.include_usage ?? false,
  };
}

function parse<T>(schema: z.ZodType<T>, body: unknown): T {
  if (typeof body !== 'object' || body === null || Array.isArray(body)) {
    throw badRequest('The body of the request must be a JSON object.', null);
  }
  const parsed = schema.safeParse(withoutNeutral(body as Record<string, unknown>));
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  if (issue === undefined) throw badRequest('The request is not valid.', null);
  if (issue.code === 'unrecognized_keys') {
    const param = pathOf([...issue.path, issue.keys[0] ?? '']);
    throw badRequest(`The parameter ${param} is not supported.`, param, 'unsupported_parameter');
  }
  const param = pathOf(issue.path);
  throw badRequest(`The parameter ${param} is not valid: ${reasonOf(issue)}`, param, 'invalid_value');
}

function withoutNeutral(body: Record<string, unknown>): Record<string, unknown> {
  const asksForNothing = (key: string, value: unknown) =>
    value === null || (Object.hasOwn(NEUTRAL, key) && JSON.stringify(value) === JSON.stringify(NEUTRAL[key]));
  return Object.fromEntries(Object.entries(body).filter(([key, value]) => !asksForNothing(key, value)));
}

function reasonOf(issue: z.core.$ZodIssue): string {
  if (issue.code !== 'invalid_union') return issue.message;
  // Of the alternatives, the one that came furthest into the value says best what is wrong.
  const nested = issue.errors.flat().sort((a, b) => b.path.length - a.path.length)[0];
  return nested === undefined ? issue.message : `${pathOf(nested.path) || 'it'}: ${nested.message}`;
}

function pathOf(path: readonly PropertyKey[]): string {
  return path.reduce<string>(
    (text, key) =>
      typeof key === 'number' ? `${text}[${key}]` : text === '' ? String(key) : `${text}.${String(key)}`,
    '',
  );
}

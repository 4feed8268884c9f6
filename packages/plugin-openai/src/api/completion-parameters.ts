import { z } from 'zod';
import { badRequest } from '../http/error.js';
import type { JsonSchema } from '../model.js';
import { cap, type Limits } from './limits.js';
import { parse, type Unsupported } from './parse.js';
import {
  count,
  type Sampling,
  type Streaming,
  sampling,
  samplingSchema,
  streaming,
  streamSchema,
} from './sampling.js';

/** A text, or tokens. */
export type Prompt = string | readonly number[];

export interface CompletionParameters extends Sampling, Streaming {
  readonly model: string;
  readonly prompts: readonly Prompt[];
  readonly n: number;
  readonly logprobs: number | undefined;
  /** The answer begins with the prompt, its log probabilities included. */
  readonly echo: boolean;
  readonly schema: JsonSchema | undefined;
}

const REFUSED: Unsupported = { suffix: [''], store: [false], service_tier: ['auto', 'default'] };

const tokens = z.array(z.number().int().min(0)).min(1);
const completionSchema = z.object({
  ...samplingSchema,
  ...streamSchema,
  model: z.string(),
  prompt: z.union([z.string(), tokens, z.array(z.string()).min(1), z.array(tokens).min(1)]),
  max_tokens: count.or(z.literal(0)).nullish(),
  n: count.nullish(),
  best_of: count.nullish(),
  // Clients of the chat's interface say `false` here, too.
  logprobs: z.union([z.number().int().min(0), z.literal(false)]).nullish(),
  echo: z.boolean().nullish(),
});

/** @throws ApiError 400 that names the parameter */
export function completionParameters(body: unknown, limits: Limits): CompletionParameters {
  const request = parse(completionSchema, body, REFUSED);
  const n = request.n ?? 1;
  const prompts = promptsOf(request.prompt);
  const logprobs = request.logprobs === false ? undefined : (request.logprobs ?? undefined);
  const echo = request.echo ?? false;
  cap(n, limits.choices, 'n', 'choices');
  cap(prompts.length, limits.prompts, 'prompt', 'prompts');
  cap(logprobs ?? 0, limits.topLogprobs, 'logprobs', 'tokens');
  if (request.best_of != null && request.best_of !== n) {
    throw badRequest(
      'best_of must be n: there is no choosing among more.',
      'best_of',
      'unsupported_parameter',
    );
  }
  if (request.max_tokens === 0 && !echo) {
    throw badRequest('Without echo, max_tokens must be at least 1.', 'max_tokens');
  }
  return {
    ...sampling(request, request.max_tokens ?? undefined, limits),
    ...streaming(request),
    model: request.model,
    prompts,
    n,
    logprobs,
    echo,
    schema: undefined,
  };
}

function promptsOf(prompt: z.infer<typeof completionSchema>['prompt']): Prompt[] {
  if (typeof prompt === 'string') return [prompt];
  return typeof prompt[0] === 'number' ? [prompt as number[]] : (prompt as (number[] | string)[]);
}

import { z } from 'zod';
import { badRequest } from '../http/error.js';
import { cap, type Limits } from './limits.js';

/** How to draw tokens and where to end, as all kinds of request say it. */
export interface Sampling {
  readonly maxTokens: number | undefined;
  readonly temperature: number;
  readonly topP: number;
  readonly topK: number | undefined;
  readonly minP: number | undefined;
  readonly repetitionPenalty: number | undefined;
  readonly presencePenalty: number;
  readonly frequencyPenalty: number;
  readonly logitBias: ReadonlyMap<number, number>;
  readonly seed: number | undefined;
  readonly stop: readonly string[];
}

export const count = z.number().int().min(1);
const between = (low: number, high: number) => z.number().min(low).max(high);

/** `null` stands for the default, as with OpenAI. The last three are what other servers of open models take. */
export const samplingSchema = {
  temperature: between(0, 2).nullish(),
  top_p: between(0, 1).nullish(),
  presence_penalty: between(-2, 2).nullish(),
  frequency_penalty: between(-2, 2).nullish(),
  logit_bias: z.record(z.string().regex(/^\d{1,9}$/, 'keys must be token ids'), between(-100, 100)).nullish(),
  // Any whole number, as large as JSON may write it.
  seed: z.number().refine(Number.isInteger, 'a whole number').nullish(),
  stop: z.union([z.string().min(1), z.array(z.string().min(1))]).nullish(),
  top_k: count.nullish(),
  min_p: between(0, 1).nullish(),
  repetition_penalty: z.number().gt(0).max(10).nullish(),
};

type Given = z.infer<z.ZodObject<typeof samplingSchema>>;

export function sampling(request: Given, maxTokens: number | undefined, limits: Limits): Sampling {
  const stop = typeof request.stop === 'string' ? [request.stop] : (request.stop ?? []);
  cap(stop.length, limits.stops, 'stop', 'stop strings');
  for (const one of stop) cap(one.length, limits.stopLength, 'stop', 'characters');
  const bias = Object.entries(request.logit_bias ?? {});
  cap(bias.length, limits.biases, 'logit_bias', 'tokens');
  return {
    maxTokens,
    // A nucleus of nothing is the most likely token.
    temperature: request.top_p === 0 ? 0 : (request.temperature ?? 1),
    topP: request.top_p === 0 ? 1 : (request.top_p ?? 1),
    topK: request.top_k ?? undefined,
    minP: request.min_p ?? undefined,
    repetitionPenalty: request.repetition_penalty ?? undefined,
    presencePenalty: request.presence_penalty ?? 0,
    frequencyPenalty: request.frequency_penalty ?? 0,
    logitBias: new Map(bias.map(([id, value]) => [Number(id), value])),
    seed: request.seed ?? undefined,
    stop,
  };
}

/** What names the caller or the request to the server's owner, and does not touch the answer. */
export const metadataSchema = z
  .record(z.string().max(64), z.string().max(512))
  .refine((pairs) => Object.keys(pairs).length <= 16, 'at most 16 pairs');

export const streamSchema = {
  stream: z.boolean().nullish(),
  stream_options: z
    .object({ include_usage: z.boolean().nullish(), include_obfuscation: z.boolean().nullish() })
    .nullish(),
  // As llama.cpp's server takes it.
  timings_per_token: z.boolean().nullish(),
};

export interface Streaming {
  readonly stream: boolean;
  readonly includeUsage: boolean;
  readonly timingsPerToken: boolean;
}

export function streaming(request: z.infer<z.ZodObject<typeof streamSchema>>): Streaming {
  if (request.stream_options != null && request.stream !== true) {
    throw badRequest('stream_options is for requests with stream: true.', 'stream_options');
  }
  return {
    stream: request.stream ?? false,
    includeUsage: request.stream_options?.include_usage ?? false,
    timingsPerToken: request.timings_per_token ?? false,
  };
}

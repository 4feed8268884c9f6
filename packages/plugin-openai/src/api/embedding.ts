import { z } from 'zod';
import { ApiError, badRequest } from '../http/error.js';
import type { TextModel } from '../model.js';
import { idsOf } from './completion.js';
import type { Prompt } from './completion-parameters.js';
import { contextExceeded } from './job.js';
import { cap, type Limits } from './limits.js';
import { parse } from './parse.js';

const tokens = z.array(z.number().int().min(0)).min(1);
const embeddingSchema = z.object({
  model: z.string(),
  input: z.union([z.string(), tokens, z.array(z.string()).min(1), z.array(tokens).min(1)]),
  encoding_format: z.enum(['float', 'base64']).nullish(),
});

export interface EmbeddingParameters {
  readonly model: string;
  readonly inputs: readonly Prompt[];
  readonly base64: boolean;
}

/** `POST /v1/embeddings` */
export function embeddingParameters(body: unknown, limits: Limits): EmbeddingParameters {
  const { model, input, encoding_format } = parse(embeddingSchema, body, { dimensions: [] });
  const inputs: Prompt[] =
    typeof input === 'string'
      ? [input]
      : typeof input[0] === 'number'
        ? [input as number[]]
        : (input as (number[] | string)[]);
  cap(inputs.length, limits.prompts, 'input', 'inputs');
  return { model, inputs, base64: encoding_format === 'base64' };
}

type Embed = NonNullable<TextModel['embed']>;

/** @throws ApiError 404 where the model has none; 400 for what it cannot read */
export async function embeddingJob(model: TextModel, { inputs }: EmbeddingParameters, signal: AbortSignal) {
  if (model.embed === undefined) {
    throw new ApiError(
      404,
      `The model ${JSON.stringify(model.id)} gives no embeddings: its graph hands out logits, and no hidden states.`,
      { param: 'model', code: 'model_has_no_embeddings' },
    );
  }
  const embed: Embed = (ids, until) => (model.embed as Embed)(ids, until);
  const all: (readonly number[])[] = [];
  for (const input of inputs) {
    const ids = await idsOf(model, input, 'input', signal);
    if (ids.length === 0) throw badRequest('The input is empty.', 'input', 'empty_prompt');
    if (ids.length > model.contextLength) throw contextExceeded(model, ids.length, undefined, 'input');
    all.push(ids);
  }
  return { embed, inputs: all };
}

/** Little-endian float32 for `base64`, which is what OpenAI's client asks for by itself. */
export function embeddingObject(
  model: string,
  vectors: readonly Float32Array[],
  promptTokens: number,
  base64: boolean,
): object {
  const encode = (vector: Float32Array) =>
    base64
      ? Buffer.from(vector.buffer, vector.byteOffset, vector.byteLength).toString('base64')
      : Array.from(vector);
  return {
    object: 'list',
    data: vectors.map((vector, index) => ({ object: 'embedding', index, embedding: encode(vector) })),
    model,
    usage: { prompt_tokens: promptTokens, total_tokens: promptTokens },
  };
}

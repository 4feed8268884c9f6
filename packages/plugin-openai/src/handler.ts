import { randomInt, randomUUID } from 'node:crypto';
import { UsageError } from '@cqil/core';
import { readJson } from './http/body.js';
import { ApiError, asApiError, badRequest } from './http/error.js';
import { chatDialect, completionDialect, type Dialect, type RequestFrame, usageOf } from './http/objects.js';
import { chatParameters, completionParameters } from './http/parameters.js';
import { streamResponse } from './http/stream.js';
import type { TextModel } from './model.js';
import { QueueFullError, TurnQueue } from './queue.js';
import { answer, type FinishReason } from './text/answer.js';

export interface HandlerOptions {
  /** The models, each under its `id`. */
  readonly models: readonly TextModel[];
  /** The most bytes of a request's body; 1 MiB when absent. */
  readonly maxBodyBytes?: number;
  /** The most requests that wait for one model; 16 when absent. More are answered with 429. */
  readonly maxWaiting?: number;
  /** Told of faults in a model, of which clients learn nothing but that there was one. */
  readonly onError?: (cause: unknown) => void;
}

interface Served {
  readonly model: TextModel;
  readonly queue: TurnQueue;
}

type Sampling = Pick<
  ReturnType<typeof chatParameters>,
  'includeUsage' | 'maxTokens' | 'seed' | 'stop' | 'stream' | 'temperature' | 'topP'
>;

/** What the older of the two interfaces generates when it is not told how much. */
const COMPLETION_TOKENS = 16;

/**
 * The OpenAI interface as one function from request to response, for any server that speaks fetch.
 *
 * `GET /health`, `GET /v1/models`, `GET /v1/models/{id}`, `POST /v1/chat/completions`, `POST /v1/completions`.
 * A model answers one request at a time; others wait in the order in which they came. A client that goes away
 * ends its generation within one token.
 *
 * @throws UsageError `MODELS_INVALID` without a model, or with two of one id
 * @example
 * const model = await openTextModel('./models/SmolLM2-135M-Instruct', { id: 'smollm2' });
 * const handler = createOpenAIHandler({ models: [model] });
 * const response = await handler(new Request('http://localhost/v1/models'));
 */
export function createOpenAIHandler(options: HandlerOptions): (request: Request) => Promise<Response> {
  const { maxBodyBytes = 1024 * 1024, maxWaiting = 16, onError = () => {} } = options;
  const served = new Map<string, Served>(
    options.models.map((model) => [model.id, { model, queue: new TurnQueue(maxWaiting) }]),
  );
  if (served.size === 0 || served.size !== options.models.length) {
    throw new UsageError('MODELS_INVALID', 'There must be models, and each must have an id of its own.', {
      expected: 'one model or more, with different ids',
      found: options.models.map(({ id }) => id).join(', ') || 'none',
    });
  }

  const find = (id: string): Served => {
    const found = served.get(id);
    if (found !== undefined) return found;
    throw new ApiError(404, `The model ${JSON.stringify(id)} does not exist.`, {
      param: 'model',
      code: 'model_not_found',
    });
  };

  const chat = async (request: Request): Promise<Response> => {
    const parameters = chatParameters(await readJson(request, maxBodyBytes));
    const { model, queue } = find(parameters.model);
    const promptIds = encoded('messages', () => model.encodeChat(parameters.messages));
    return respond(request, { model, queue }, chatDialect, promptIds, parameters, 'messages', undefined);
  };

  const complete = async (request: Request): Promise<Response> => {
    const parameters = completionParameters(await readJson(request, maxBodyBytes));
    const { model, queue } = find(parameters.model);
    const promptIds = encoded('prompt', () => model.encode(parameters.prompt));
    return respond(
      request,
      { model, queue },
      completionDialect,
      promptIds,
      parameters,
      'prompt',
      COMPLETION_TOKENS,
    );
  };

  const respond = async (
    request: Request,
    { model, queue }: Served,
    dialect: Dialect,
    promptIds: readonly number[],
    sampling: Sampling,
    param: string,
    defaultTokens: number | undefined,
  ): Promise<Response> => {
    const maxTokens = tokensFor(model, promptIds.length, sampling.maxTokens, defaultTokens, param);
    const gone = new AbortController();
    const leave = () => gone.abort(request.signal.reason);
    if (request.signal.aborted) leave();
    else request.signal.addEventListener('abort', leave, { once: true });

    const endTurn = await queue.turn(gone.signal).catch((cause: unknown) => {
      request.signal.removeEventListener('abort', leave);
      throw cause instanceof QueueFullError ? busy(cause) : cause;
    });
    const end = () => {
      request.signal.removeEventListener('abort', leave);
      endTurn();
    };
    const frame: RequestFrame = {
      id: `${dialect.idPrefix}${randomUUID()}`,
      created: Math.floor(Date.now() / 1000),
      model: model.id,
    };
    const { temperature, topP, seed = randomInt(2 ** 32) } = sampling;
    const parts = answer(
      model,
      { promptIds, maxTokens, temperature, topP, seed, signal: gone.signal },
      sampling.stop,
    );
    if (sampling.stream) {
      const { includeUsage } = sampling;
      const promptTokens = promptIds.length;
      return streamResponse(parts, {
        dialect,
        frame,
        promptTokens,
        includeUsage,
        gone,
        onEnd: end,
        onError,
      });
    }
    try {
      let text = '';
      let tokens = 0;
      let finishReason: FinishReason = 'length';
      for await (const part of parts) {
        text += part.text;
        tokens = part.tokens;
        finishReason = part.finishReason ?? finishReason;
      }
      return Response.json(dialect.whole(frame, text, finishReason, usageOf(promptIds.length, tokens)));
    } finally {
      end();
    }
  };

  const routes: readonly [method: string, path: RegExp, (request: Request, match: string) => unknown][] = [
    ['GET', /^\/health$/, () => Response.json({ status: 'ok' })],
    [
      'GET',
      /^\/v1\/models$/,
      () => Response.json({ object: 'list', data: [...served.values()].map(describe) }),
    ],
    ['GET', /^\/v1\/models\/(.+)$/, (_request, id) => Response.json(describe(find(decode(id))))],
    ['POST', /^\/v1\/chat\/completions$/, chat],
    ['POST', /^\/v1\/completions$/, complete],
  ];

  return async (request) => {
    try {
      const { pathname } = new URL(request.url);
      const matching = routes.filter(([, path]) => path.test(pathname));
      if (matching.length === 0)
        throw new ApiError(404, `There is nothing at ${pathname}.`, { code: 'unknown_url' });
      const route = matching.find(([method]) => method === request.method);
      if (route === undefined)
        throw wrongMethod(
          request.method,
          matching.map(([method]) => method),
        );
      const [, path, handle] = route;
      return (await handle(request, path.exec(pathname)?.[1] ?? '')) as Response;
    } catch (cause) {
      // Nobody reads this answer.
      if (request.signal.aborted) return new Response(null, { status: 499 });
      if (!(cause instanceof ApiError)) onError(cause);
      return asApiError(cause).response();
    }
  };
}

function describe({ model }: Served): object {
  return { id: model.id, object: 'model', created: model.created, owned_by: 'cqil' };
}

function decode(id: string): string {
  try {
    return decodeURIComponent(id);
  } catch {
    throw badRequest('The model id in the path is not valid.', 'model');
  }
}

/** A prompt that the template or the tokenizer refuses is the client's to change. */
function encoded(param: string, encode: () => readonly number[]): readonly number[] {
  try {
    return encode();
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw badRequest(`The model does not take the ${param}: ${reason}`, param, 'invalid_value');
  }
}

function tokensFor(
  model: TextModel,
  promptTokens: number,
  asked: number | undefined,
  byDefault: number | undefined,
  param: string,
): number {
  const room = model.contextLength - promptTokens;
  if (promptTokens === 0) throw badRequest('The prompt is empty.', param, 'invalid_value');
  if (room >= (asked ?? 1)) return asked ?? Math.min(room, byDefault ?? room);
  throw badRequest(
    `The model's context is ${model.contextLength} tokens; the prompt has ${promptTokens}` +
      (asked === undefined ? '.' : ` and ${asked} are asked for.`),
    param,
    'context_length_exceeded',
  );
}

function busy({ retryAfter }: QueueFullError): ApiError {
  return new ApiError(429, 'The model has as many requests waiting as it takes. Try again later.', {
    type: 'rate_limit_error',
    code: 'queue_full',
    headers: { 'retry-after': String(retryAfter) },
  });
}

function wrongMethod(method: string, allowed: readonly string[]): ApiError {
  return new ApiError(405, `${method} is not allowed here.`, {
    code: 'method_not_allowed',
    headers: { allow: allowed.join(', ') },
  });
}

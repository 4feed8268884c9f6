import { randomUUID } from 'node:crypto';
import { chatEndpoint } from './api/chat.js';
import { completionEndpoint } from './api/completion.js';
import { embeddingJob, embeddingObject, embeddingParameters } from './api/embedding.js';
import type { Endpoint } from './api/job.js';
import { LIMITS, type Limits } from './api/limits.js';
import { responseEndpoint } from './api/response.js';
import { detokenizeParameters, tokenizeParameters } from './api/tokens.js';
import type { Frame } from './api/writer.js';
import { readJson } from './http/body.js';
import { ApiError, asApiError, badRequest } from './http/error.js';
import { eventStream } from './http/events.js';
import { Keys } from './http/keys.js';
import { type Cors, Origins } from './http/origin.js';
import { type Route, routeOf } from './http/route.js';
import { ModelLostError, type TextModel } from './model.js';
import { chatPage } from './page/page.js';
import { DrainedError, draining, endError, Life } from './serving/life.js';
import { Metrics } from './serving/metrics.js';
import { Models } from './serving/models.js';
import { QueueFullError } from './serving/queue.js';
import { type Logger, RequestRecord } from './serving/record.js';
import type { Lease, ModelSource, Served } from './serving/served.js';
import { Work } from './serving/work.js';

/** How long requests that have been ended have to say so. */
const LAST_WORD_MS = 1000;

export interface HandlerOptions {
  /** The models, each under its `id`; or what they are opened from when they are first asked for. */
  readonly models: readonly (ModelSource | TextModel)[];
  /** How much one request may ask for. */
  readonly limits?: Partial<Limits>;
  /** The most requests that wait for one model; 16 when absent. More are answered with 429. */
  readonly maxWaiting?: number;
  /**
   * Under load, by a model's id, the one that answers instead: a faster variant. It does when `fallbackWaiting`
   * requests (2 when absent) wait for the model and fewer for the variant; the answer names it.
   */
  readonly fallbacks?: Readonly<Record<string, string>>;
  readonly fallbackWaiting?: number;
  /** A request that takes longer, its wait included, is ended; 600,000 ms when absent. */
  readonly deadlineMs?: number;
  /**
   * Bytes that all models may take in memory together; without end when absent. Before a model is opened that would
   * go beyond, idle ones that can be closed again (`ModelSource.close`) are, those used longest ago first. One in use stays;
   * what waits for it is answered as what waits for a model that is loading.
   */
  readonly memoryBytes?: number;
  /** How long a request waits for a model that is loading before it is answered with 503; 10,000 ms when absent. */
  readonly loadWaitMs?: number;
  /** A stream has a comment after so long a silence; 10,000 ms when absent. */
  readonly pingMs?: number;
  /** A reader who takes nothing from a stream for so long is cut off; 30,000 ms when absent. */
  readonly slowReaderMs?: number;
  /** With keys, everything but `/health` wants one of them. */
  readonly apiKeys?: readonly string[];
  /** Pages of other origins that may use the server from a browser; none when absent. */
  readonly cors?: Cors;
  /**
   * Answers tell how long they took, in a member `timings` such as llama.cpp's server has; `true` when absent. Of streams
   * the last chunk does, or with `timings_per_token` each.
   */
  readonly timings?: boolean;
  /** Serves `/metrics` for Prometheus. */
  readonly metrics?: boolean;
  /** Serves a page to chat at `/`. */
  readonly page?: boolean;
  /** Told of every request when it is over; pino fits. It sees no keys, and no prompts unless `logPrompts` says so. */
  readonly logger?: Logger;
  readonly logPrompts?: boolean;
  /** Told of faults in a model, of which clients learn nothing but that there was one. */
  readonly onError?: (cause: unknown) => void;
}

/** A function from request to response, for any server that speaks fetch. */
export interface OpenAIHandler {
  (request: Request): Promise<Response>;
  /**
   * Answers new requests with 503, and waits for those under way; what is not over after `drainMs` is ended.
   * For good: there is no way back.
   */
  drain(options?: { readonly drainMs?: number }): Promise<void>;
}

/**
 * The OpenAI interface as one function from request to response.
 *
 * `POST /v1/chat/completions`, `/v1/completions`, `/v1/responses`, `/v1/embeddings`, `/tokenize`, `/detokenize`;
 * `GET /v1/models`, `/v1/models/{id}`, `/health`; `/metrics` and a page at `/` where they are asked for.
 * A model answers as many requests at a time as it can; others wait in the order in which they came. A client that goes away
 * ends its generation within one token.
 *
 * @throws UsageError `MODELS_INVALID` without a model, with two of one id, or a fallback that is none; `API_KEY_INVALID` for an empty key
 * @example
 * const model = await openTextModel('./models/SmolLM2-135M-Instruct', { id: 'smollm2' });
 * const handler = createOpenAIHandler({ models: [model] });
 * const response = await handler(new Request('http://localhost/v1/models'));
 */
export function createOpenAIHandler(options: HandlerOptions): OpenAIHandler {
  const {
    maxWaiting = 16,
    fallbacks = {},
    fallbackWaiting = 2,
    deadlineMs = 600_000,
    loadWaitMs = 10_000,
    pingMs = 10_000,
    slowReaderMs = 30_000,
    logger,
    onError = () => {},
  } = options;
  const limits: Limits = { ...LIMITS, ...options.limits };
  const keys = new Keys(options.apiKeys ?? []);
  const origins = new Origins(options.cors);
  const models = new Models(options.models, {
    maxWaiting,
    fallbacks,
    fallbackWaiting,
    memoryBytes: options.memoryBytes ?? Number.POSITIVE_INFINITY,
    onError,
  });
  const metrics = options.metrics === true ? new Metrics(models.all) : undefined;
  const lives = new Set<Life>();
  let closing = false;
  let idle = () => {};

  interface Context {
    readonly request: Request;
    readonly record: RequestRecord;
    readonly life: Life;
    /** Set when it has its model. */
    lease?: Lease;
  }

  const body = ({ request }: Context) =>
    readJson(request, { bytes: limits.bodyBytes, milliseconds: limits.bodyMs, depth: limits.bodyDepth });

  const open = async (id: string, context: Context): Promise<[Served, Lease]> => {
    const { record, life } = context;
    const served = models.choose(id);
    record.fields.model = served.id;
    const lease = await served.use(loadWaitMs, life.signal, (cause) => life.abort(cause));
    life.onEnd(lease.end);
    context.lease = lease;
    return [served, lease];
  };

  const join = ({ queue }: Served, life: Life) => {
    life.signal.throwIfAborted();
    try {
      return queue.join(life.signal);
    } catch (cause) {
      throw cause instanceof QueueFullError ? busy(cause) : cause;
    }
  };

  const generate =
    <P extends { readonly model: string; readonly stream: boolean }>(endpoint: Endpoint<P>) =>
    async (context: Context): Promise<Response> => {
      const { record, life } = context;
      const parameters = endpoint.parameters(await body(context), limits);
      const [served, lease] = await open(parameters.model, context);
      const frame: Frame = {
        id: `${endpoint.idPrefix}${randomUUID().replaceAll('-', '')}`,
        created: Math.floor(Date.now() / 1000),
        model: served.id,
      };
      if (options.logPrompts === true) record.fields.prompt = endpoint.prompt(parameters);
      const job = await endpoint.job(lease.model, parameters, frame, life.signal);
      record.fields.stream = parameters.stream;
      record.fields.promptTokens = job.promptTokens;
      const turn = join(served, life);
      const work = new Work({ lease, job, turn, life, record, timings: options.timings !== false, onError });
      if (!parameters.stream) return Response.json(await work.whole());
      return eventStream(work.events(), { pingMs, slowReaderMs, onGone: (reason) => life.abort(reason) });
    };

  const embed = async (context: Context): Promise<Response> => {
    const { life, record } = context;
    const parameters = embeddingParameters(await body(context), limits);
    const [served, { model }] = await open(parameters.model, context);
    const job = await embeddingJob(model, parameters, life.signal);
    const end = await join(served, life);
    record.turn();
    const vectors: Float32Array[] = [];
    try {
      for (const ids of job.inputs) {
        life.signal.throwIfAborted();
        vectors.push(await job.embed(ids, life.signal));
      }
    } finally {
      end();
    }
    const promptTokens = job.inputs.reduce((sum, { length }) => sum + length, 0);
    record.fields.promptTokens = promptTokens;
    return Response.json(embeddingObject(served.id, vectors, promptTokens, parameters.base64));
  };

  const tokenize = async (context: Context): Promise<Response> => {
    const { model: id, encode } = tokenizeParameters(await body(context), limits);
    const [, { model }] = await open(id, context);
    const tokens = await encode(model, context.life.signal);
    return Response.json({ tokens, count: tokens.length, max_model_len: model.contextLength });
  };

  const detokenize = async (context: Context): Promise<Response> => {
    const { model: id, decode } = detokenizeParameters(await body(context));
    const [, { model }] = await open(id, context);
    return Response.json({ prompt: decode(model) });
  };

  const health = (): Response => {
    const status = closing ? 'draining' : models.ready ? 'ok' : 'loading';
    return Response.json({ status }, status === 'ok' ? {} : { status: 503, headers: { 'retry-after': '2' } });
  };

  type Handle = (context: Context, match: string) => Promise<Response> | Response;
  const routes: readonly Route<Handle>[] = [
    {
      method: 'GET',
      path: '/v1/models',
      handle: () => Response.json({ object: 'list', data: models.all.map(describe) }),
    },
    {
      method: 'GET',
      path: '/v1/models/*',
      handle: (_context, id) => Response.json(describe(models.find(decode(id)))),
    },
    { method: 'POST', path: '/v1/chat/completions', handle: generate(chatEndpoint) },
    { method: 'POST', path: '/v1/completions', handle: generate(completionEndpoint) },
    { method: 'POST', path: '/v1/responses', handle: generate(responseEndpoint) },
    { method: 'POST', path: '/v1/embeddings', handle: embed },
    { method: 'POST', path: '/tokenize', handle: tokenize },
    { method: 'POST', path: '/detokenize', handle: detokenize },
    ...(metrics === undefined
      ? []
      : [{ method: 'GET', path: '/metrics', handle: () => metrics.response() } as const]),
    ...(options.page === true ? [{ method: 'GET', path: '/', handle: chatPage } as const] : []),
  ];

  /** Everything but what is asked without a key. */
  const answer = async (request: Request, record: (route: string) => RequestRecord): Promise<Response> => {
    const { pathname } = new URL(request.url);
    const method = request.method === 'HEAD' ? 'GET' : request.method;
    if (pathname === '/health' && method === 'GET') return health();
    const found = routeOf(routes, method, pathname);
    const life = new Life(request.signal, deadlineMs);
    const context: Context = { request, life, record: record(found.route) };
    lives.add(life);
    life.onEnd(() => {
      lives.delete(life);
      if (lives.size === 0) idle();
    });
    let streaming = false;
    try {
      if (closing) throw draining();
      keys.check(request.headers);
      origins.check(request);
      if (found.error !== undefined) throw found.error;
      const response = await found.handle(context, found.match);
      streaming = response.headers.get('content-type')?.startsWith('text/event-stream') ?? false;
      return response;
    } catch (cause) {
      if (cause instanceof ModelLostError) context.lease?.lose(cause);
      // What ended the request says more than what came of that.
      const error = life.signal.aborted ? endError(life.signal.reason) : asApiError(cause);
      if (error === undefined) {
        context.record.fields.status = 499;
        // Nobody reads this answer.
        return new Response(null, { status: 499 });
      }
      if (!life.signal.aborted && !(cause instanceof ApiError) && error.status >= 500) onError(cause);
      context.record.fields.status = error.status;
      context.record.fields.code = error.code;
      return error.response();
    } finally {
      if (!streaming) {
        life.end();
        context.record.end();
      }
    }
  };

  const handler = async (request: Request): Promise<Response> => {
    const preflight = origins.preflight(request);
    if (preflight !== undefined) return preflight;
    const requestId = randomUUID();
    const response = await answer(
      request,
      (route) =>
        new RequestRecord({ requestId, method: request.method, route, status: 200 }, logger, metrics),
    );
    response.headers.set('x-request-id', requestId);
    const allowed = origins.allow(response, request.headers.get('origin'));
    return request.method === 'HEAD' ? new Response(null, allowed) : allowed;
  };

  const drain = async ({ drainMs = 30_000 }: { readonly drainMs?: number } = {}): Promise<void> => {
    closing = true;
    const over = new Promise<void>((resolve) => {
      idle = resolve;
      if (lives.size === 0) resolve();
    });
    const timers: NodeJS.Timeout[] = [];
    const enough = new Promise<void>((resolve) => {
      timers.push(
        setTimeout(() => {
          for (const life of lives) life.abort(new DrainedError('The server is closing.'));
        }, drainMs),
        // One who does not read does not learn of it, either.
        setTimeout(resolve, drainMs + LAST_WORD_MS),
      );
    });
    await Promise.race([over, enough]);
    for (const timer of timers) clearTimeout(timer);
  };

  return Object.assign(handler, { drain });
}

function describe({ id, created }: Served): object {
  return { id, object: 'model', created, owned_by: 'cqil' };
}

function decode(id: string): string {
  try {
    return decodeURIComponent(id);
  } catch {
    throw badRequest('The model id in the path is not valid.', 'model');
  }
}

function busy({ retryAfter }: QueueFullError): ApiError {
  return new ApiError(429, 'The model has as many requests waiting as it takes. Try again later.', {
    type: 'rate_limit_error',
    code: 'queue_full',
    headers: { 'retry-after': String(retryAfter) },
  });
}

import type { IncomingMessage, ServerResponse } from 'node:http';
import { Readable } from 'node:stream';
import { ApiError } from '../http/error.js';

type FetchHandler = (request: Request) => Promise<Response>;

/**
 * A fetch handler as a listener of node's HTTP server, which is what Express and others mount, too. A body that the
 * server has read and parsed before is taken from `request.body`.
 *
 * @example
 * createServer(toNodeListener(handler)).listen(8080);
 * express().use('/openai', toNodeListener(handler));
 */
export function toNodeListener(
  handler: FetchHandler,
): (incoming: IncomingMessage, outgoing: ServerResponse) => void {
  return (incoming, outgoing) => {
    handle(handler, incoming, outgoing).catch(() => outgoing.destroy());
  };
}

/** What this needs of Fastify, so that it need not be installed. */
interface FastifyLike {
  removeAllContentTypeParsers(): unknown;
  addContentTypeParser(
    type: string,
    parser: (request: unknown, payload: unknown, done: (error: null) => void) => void,
  ): unknown;
  all(
    path: string,
    handler: (
      request: { readonly raw: IncomingMessage },
      reply: { readonly raw: ServerResponse; hijack(): unknown },
    ) => void,
  ): unknown;
}

/**
 * A fetch handler as a plugin of Fastify, whose own parsing of bodies it leaves out.
 *
 * @example
 * await fastify().register(toFastifyPlugin(handler));
 */
export function toFastifyPlugin(handler: FetchHandler): (instance: FastifyLike) => Promise<void> {
  const listener = toNodeListener(handler);
  return async (instance) => {
    instance.removeAllContentTypeParsers();
    instance.addContentTypeParser('*', (_request, _payload, done) => done(null));
    instance.all('/*', ({ raw }, reply) => {
      reply.hijack();
      listener(raw, reply.raw);
    });
  };
}

async function handle(
  handler: FetchHandler,
  incoming: IncomingMessage,
  outgoing: ServerResponse,
): Promise<void> {
  const gone = new AbortController();
  outgoing.once('close', () => {
    if (!outgoing.writableFinished) gone.abort(new Error('The client went away.'));
  });
  const request = requestOf(incoming, gone.signal);
  const response = request === undefined ? noRequest(incoming) : await handler(request);
  // A body that nobody has read would be taken for the next request.
  const unread = !incoming.complete;
  outgoing.writeHead(response.status, {
    ...Object.fromEntries(response.headers),
    ...(unread ? { connection: 'close' } : {}),
  });
  if (response.body === null) outgoing.end();
  else await send(response.body, outgoing, gone.signal);
  if (unread) outgoing.once('finish', () => incoming.destroy());
}

async function send(
  body: ReadableStream<Uint8Array>,
  outgoing: ServerResponse,
  gone: AbortSignal,
): Promise<void> {
  // Before the first token there may be nothing to send for long.
  outgoing.flushHeaders();
  const reader = body.getReader();
  const leave = () => reader.cancel(gone.reason).catch(() => {});
  if (gone.aborted) leave();
  else gone.addEventListener('abort', leave, { once: true });
  // A stream that is broken off is not to look as if it had ended, nor to wait for a client that reads nothing.
  reader.closed.catch(() => outgoing.destroy());
  for (;;) {
    const { done, value } = await reader.read();
    if (done || gone.aborted) break;
    if (!outgoing.write(value)) await drained(outgoing, gone);
  }
  outgoing.end();
}

/** What HTTP allows and fetch has no requests for, such as `TRACE`. */
function noRequest({ method }: IncomingMessage): Response {
  return new ApiError(405, `${method} is not allowed here.`, {
    code: 'method_not_allowed',
    headers: { allow: 'GET, POST' },
  }).response();
}

function requestOf(incoming: IncomingMessage, signal: AbortSignal): Request | undefined {
  if (['CONNECT', 'TRACE', 'TRACK'].includes(incoming.method?.toUpperCase() ?? '')) return undefined;
  const headers = new Headers();
  for (let i = 0; i < incoming.rawHeaders.length; i += 2) {
    headers.append(incoming.rawHeaders[i] ?? '', incoming.rawHeaders[i + 1] ?? '');
  }
  // The host is the client's word; only the path counts.
  const url = new URL(pathOf(incoming.url ?? '/'), 'http://localhost');
  const method = incoming.method ?? 'GET';
  if (method === 'GET' || method === 'HEAD') return new Request(url, { method, headers, signal });
  const { body: parsed } = incoming as { body?: unknown };
  if (parsed !== undefined && incoming.readableEnded) {
    const body = typeof parsed === 'string' ? parsed : JSON.stringify(parsed);
    headers.delete('content-length');
    return new Request(url, { method, headers, signal, body });
  }
  const body = Readable.toWeb(incoming) as ReadableStream<Uint8Array>;
  return new Request(url, { method, headers, signal, body, duplex: 'half' });
}

/** What stands in a request's first line may be a whole URL, or look like one: `//example.com`. */
function pathOf(target: string): string {
  if (target.startsWith('/')) return target.replace(/^\/+/, '/');
  return URL.canParse(target) ? new URL(target).pathname : '/';
}

function drained(outgoing: ServerResponse, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    outgoing.once('drain', resolve);
    signal.addEventListener('abort', () => resolve(), { once: true });
  });
}

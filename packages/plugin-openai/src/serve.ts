import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { Readable } from 'node:stream';
import { EnvironmentError } from '@cqil/core';

export interface ServeOptions {
  /** 8000 when absent; 0 takes a free one. */
  readonly port?: number;
  /** The address to listen on. `127.0.0.1`, this machine alone, when absent. */
  readonly hostname?: string;
}

export interface Server {
  /** Without a slash at the end: `http://127.0.0.1:8000`. */
  readonly url: string;
  /** Takes no more requests, and waits for those under way. */
  close(): Promise<void>;
}

/**
 * Serves a fetch handler by node's own HTTP server.
 *
 * @throws EnvironmentError `LISTEN_FAILED`
 * @example
 * const server = await serve(handler, { port: 8000 });
 */
export async function serve(
  handler: (request: Request) => Promise<Response>,
  { port = 8000, hostname = '127.0.0.1' }: ServeOptions = {},
): Promise<Server> {
  // A connection without a request under way would keep the server open as long as its client likes; node
  // closes those that have had one, and not those that have yet to begin.
  const waiting = new Set<Socket>();
  let closing = false;
  const server = createServer((incoming, outgoing) => {
    const { socket } = incoming;
    waiting.delete(socket);
    outgoing.once('close', () => {
      if (closing) socket.destroySoon();
      else if (!socket.destroyed) waiting.add(socket);
    });
    handle(handler, incoming, outgoing).catch(() => outgoing.destroy());
  });
  server.on('connection', (socket) => {
    waiting.add(socket);
    socket.once('close', () => waiting.delete(socket));
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause) =>
      reject(
        new EnvironmentError('LISTEN_FAILED', `Could not listen on ${hostname}:${port}.`, {
          found: cause.message,
          hint: 'choose another port',
          cause,
        }),
      ),
    );
    server.listen(port, hostname, resolve);
  });
  const { address, family, port: bound } = server.address() as AddressInfo;
  return {
    url: `http://${family === 'IPv6' ? `[${address}]` : address}:${bound}`,
    close: () =>
      new Promise((resolve) => {
        closing = true;
        server.close(() => resolve());
        for (const socket of waiting) socket.destroy();
      }),
  };
}

async function handle(
  handler: (request: Request) => Promise<Response>,
  incoming: IncomingMessage,
  outgoing: ServerResponse,
): Promise<void> {
  const gone = new AbortController();
  outgoing.once('close', () => {
    if (!outgoing.writableFinished) gone.abort(new Error('The client went away.'));
  });
  const response = await handler(requestOf(incoming, gone.signal));
  // A body that nobody has read would be taken for the next request.
  const unread = !incoming.complete;
  outgoing.writeHead(response.status, {
    ...Object.fromEntries(response.headers),
    ...(unread ? { connection: 'close' } : {}),
  });
  if (response.body === null) {
    outgoing.end();
  } else {
    const reader = response.body.getReader();
    gone.signal.addEventListener('abort', () => reader.cancel(gone.signal.reason).catch(() => {}), {
      once: true,
    });
    for (;;) {
      const { done, value } = await reader.read();
      if (done || gone.signal.aborted) break;
      if (!outgoing.write(value)) await drained(outgoing, gone.signal);
    }
    outgoing.end();
  }
  if (unread) outgoing.once('finish', () => incoming.destroy());
}

function requestOf(incoming: IncomingMessage, signal: AbortSignal): Request {
  const headers = new Headers();
  for (let i = 0; i < incoming.rawHeaders.length; i += 2) {
    headers.append(incoming.rawHeaders[i] ?? '', incoming.rawHeaders[i + 1] ?? '');
  }
  // The host is the client's word; only the path counts.
  const url = new URL(incoming.url ?? '/', 'http://localhost');
  const method = incoming.method ?? 'GET';
  if (method === 'GET' || method === 'HEAD') return new Request(url, { method, headers, signal });
  const body = Readable.toWeb(incoming) as ReadableStream<Uint8Array>;
  return new Request(url, { method, headers, signal, body, duplex: 'half' });
}

function drained(outgoing: ServerResponse, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    outgoing.once('drain', resolve);
    signal.addEventListener('abort', () => resolve(), { once: true });
  });
}

import { createServer, STATUS_CODES } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { EnvironmentError } from '@cqil/core';
import { ApiError } from '../http/error.js';
import { toNodeListener } from './listener.js';

export interface ServeOptions {
  /** 8080 when absent; 0 takes a free one. */
  readonly port?: number;
  /** The address to listen on. `127.0.0.1`, this machine alone, when absent. */
  readonly hostname?: string;
}

export interface CloseOptions {
  /** How long requests under way may take to end; 30,000 ms when absent. */
  readonly drainMs?: number;
}

export interface Server {
  /** Without a slash at the end: `http://127.0.0.1:8080`. */
  readonly url: string;
  /**
   * Takes no more requests (a handler that can `drain` answers them with 503 meanwhile), and waits for those under
   * way.
   */
  close(options?: CloseOptions): Promise<void>;
}

/** A fetch handler; one that knows how to end is asked to before the server closes. */
export type ServableHandler = ((request: Request) => Promise<Response>) & {
  drain?(options: { readonly drainMs: number }): Promise<void>;
};

/**
 * Serves a fetch handler by node's own HTTP server.
 *
 * @throws EnvironmentError `LISTEN_FAILED`
 * @example
 * const server = await serve(handler, { port: 8080 });
 */
export async function serve(
  handler: ServableHandler,
  { port = 8080, hostname = '127.0.0.1' }: ServeOptions = {},
): Promise<Server> {
  // A connection without a request under way would keep the server open as long as its client likes; node
  // closes those that have had one, and not those that have yet to begin.
  const waiting = new Set<Socket>();
  let closing = false;
  const listener = toNodeListener(handler);
  const server = createServer((incoming, outgoing) => {
    const { socket } = incoming;
    waiting.delete(socket);
    outgoing.once('close', () => {
      if (closing) socket.destroySoon();
      else if (!socket.destroyed) waiting.add(socket);
    });
    listener(incoming, outgoing);
  });
  server.on('connection', (socket) => {
    waiting.add(socket);
    socket.once('close', () => waiting.delete(socket));
  });
  server.on('clientError', refuse);
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

  const close = async ({ drainMs = 30_000 }: CloseOptions = {}): Promise<void> => {
    // As long as the handler drains, newcomers are told so.
    await handler.drain?.({ drainMs });
    closing = true;
    const closed = new Promise<void>((resolve) => server.close(() => resolve()));
    for (const socket of waiting) socket.destroy();
    const timer = setTimeout(
      () => server.closeAllConnections(),
      handler.drain === undefined ? drainMs : 1000,
    );
    await closed.finally(() => clearTimeout(timer));
  };
  return { url: `http://${family === 'IPv6' ? `[${address}]` : address}:${bound}`, close };
}

const REFUSALS: Readonly<Record<string, readonly [status: number, code: string, message: string]>> = {
  HPE_HEADER_OVERFLOW: [431, 'headers_too_large', 'The headers of the request are too large.'],
  ERR_HTTP_REQUEST_TIMEOUT: [408, 'request_timeout', 'The request did not come in time.'],
};

/** What never became a request has its answer in the same form. */
function refuse(cause: NodeJS.ErrnoException, socket: Pick<Socket, 'destroy' | 'end' | 'writable'>): void {
  if (!socket.writable || cause.code === 'ECONNRESET') {
    socket.destroy();
    return;
  }
  const [status, code, message] = REFUSALS[cause.code ?? ''] ?? [
    400,
    'invalid_http',
    'This is no HTTP request.',
  ];
  const body = JSON.stringify(new ApiError(status, message, { code }).body());
  socket.end(
    [
      `HTTP/1.1 ${status} ${STATUS_CODES[status]}`,
      'content-type: application/json',
      `content-length: ${Buffer.byteLength(body)}`,
      'connection: close',
      '',
      body,
    ].join('\r\n'),
  );
}

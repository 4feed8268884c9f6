import { createHash } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface HubRequestSeen {
  readonly host: 'hub' | 'cdn';
  readonly path: string;
  readonly authorization: string | undefined;
  readonly range: string | undefined;
}

export interface MockHub {
  readonly endpoint: string;
  readonly requests: HubRequestSeen[];
  /** The content of each file of the one repository `org/model`. Changing it changes what is served. */
  readonly files: Map<string, Buffer>;
  /** Files served through a redirect to another origin, as a hub does with large ones. */
  readonly large: Set<string>;
  /** Per file: how many bytes to send before the connection is cut, once each, in order. */
  readonly cuts: Map<string, number[]>;
  /** Answers every request with this status. */
  status: number | undefined;
  /** Overrides the hash that the listing names. */
  readonly falseHashes: Map<string, string>;
  readonly commit: string;
  ignoreRanges: boolean;
  close(): Promise<void>;
}

/** A hub on 127.0.0.1 with one repository, `org/model`, and a second origin for large files. */
export async function mockHub(): Promise<MockHub> {
  const commit = 'c'.repeat(40);
  const cdn = await listen((request, response) => {
    seen('cdn', request);
    send(request, response, decodeURIComponent(new URL(request.url ?? '/', 'http://x').pathname.slice(1)));
  });
  const hub = await listen((request, response) => {
    seen('hub', request);
    const path = decodeURIComponent(new URL(request.url ?? '/', 'http://x').pathname);
    if (state.status !== undefined) return void response.writeHead(state.status).end();
    if (path === '/api/models/org/model/revision/main')
      return json(response, { _id: '1', id: 'org/model', sha: commit });
    if (path === `/api/models/org/model/tree/${commit}`) {
      return json(
        response,
        [...state.files].map(([name, content]) => entry(name, content)),
      );
    }
    const prefix = `/org/model/resolve/${commit}/`;
    const name = path.slice(prefix.length);
    if (!path.startsWith(prefix) || !state.files.has(name)) return void response.writeHead(404).end();
    if (!state.large.has(name)) return send(request, response, name);
    response
      .writeHead(302, { location: `${origin(cdn)}/${encodeURIComponent(name)}?signature=secret` })
      .end();
  });

  const state: MockHub = {
    endpoint: origin(hub),
    requests: [],
    files: new Map(),
    large: new Set(),
    cuts: new Map(),
    falseHashes: new Map(),
    status: undefined,
    commit,
    ignoreRanges: false,
    close: async () => {
      for (const server of [hub, cdn]) {
        server.closeAllConnections();
        await new Promise((resolve) => server.close(resolve));
      }
    },
  };
  return state;

  function seen(host: 'hub' | 'cdn', { url = '/', headers }: IncomingMessage): void {
    const { pathname } = new URL(url, 'http://x');
    state.requests.push({
      host,
      path: decodeURIComponent(pathname),
      authorization: headers.authorization,
      range: headers.range,
    });
  }

  function entry(path: string, content: Buffer): object {
    const sha256 = state.falseHashes.get(path) ?? createHash('sha256').update(content).digest('hex');
    const blob = createHash('sha1').update(`blob ${content.length}\0`).update(content).digest('hex');
    const base = { type: 'file', path, size: content.length };
    return state.large.has(path)
      ? { ...base, oid: 'f'.repeat(40), lfs: { oid: sha256, size: content.length, pointerSize: 130 } }
      : { ...base, oid: state.falseHashes.get(path) ?? blob };
  }

  function send(request: IncomingMessage, response: ServerResponse, name: string): void {
    const content = state.files.get(name) ?? Buffer.alloc(0);
    const start = state.ignoreRanges
      ? 0
      : Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0);
    const rest = content.subarray(start);
    const head = { 'content-length': rest.length, 'content-type': 'application/octet-stream' };
    if (start > 0) {
      response.writeHead(206, {
        ...head,
        'content-range': `bytes ${start}-${content.length - 1}/${content.length}`,
      });
    } else response.writeHead(200, head);
    const cut = state.cuts.get(name)?.shift();
    if (cut === undefined) response.end(rest);
    else response.write(rest.subarray(0, cut), () => setTimeout(() => response.destroy(), 20));
  }
}

function json(response: ServerResponse, value: unknown): void {
  response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(value));
}

function listen(handler: (request: IncomingMessage, response: ServerResponse) => void): Promise<Server> {
  return new Promise((resolve) => {
    const server = createServer(handler);
    server.listen(0, '127.0.0.1', () => resolve(server));
  });
}

function origin(server: Server): string {
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

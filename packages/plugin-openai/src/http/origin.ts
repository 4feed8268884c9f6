import { ApiError } from './error.js';

/** Pages of other origins that may use the server from a browser. */
export interface Cors {
  /** `https://example.com`, as browsers write it; `*` for all. */
  readonly origins: '*' | readonly string[];
}

/**
 * What browsers may do for pages of other origins: nothing, unless the server's owner says so. Without that, a page
 * on the web could make a visitor's machine work, even if it could not read the answer.
 */
export class Origins {
  readonly #cors: Cors | undefined;

  constructor(cors: Cors | undefined) {
    this.#cors = cors;
  }

  /** @throws ApiError 403 for a page of another origin */
  check({ headers }: Request): void {
    const origin = headers.get('origin');
    if (origin === null || this.#allows(origin) || hostOf(origin) === headers.get('host')) return;
    throw new ApiError(403, 'Pages of this origin may not use the server.', {
      type: 'permission_error',
      code: 'origin_not_allowed',
    });
  }

  /** The answer to what browsers ask before a request, if this is one. */
  preflight({ method, headers }: Request): Response | undefined {
    if (method !== 'OPTIONS' || !headers.has('access-control-request-method')) return undefined;
    const origin = headers.get('origin') ?? '';
    if (!this.#allows(origin)) return new Response(null, { status: 403 });
    return this.allow(
      new Response(null, {
        status: 204,
        headers: {
          'access-control-allow-methods': 'GET, POST',
          'access-control-allow-headers':
            headers.get('access-control-request-headers') ?? 'authorization, content-type',
          'access-control-max-age': '600',
        },
      }),
      origin,
    );
  }

  /** Lets the page read the response. */
  allow(response: Response, origin: string | null): Response {
    if (this.#cors === undefined) return response;
    response.headers.append('vary', 'origin');
    if (origin !== null && this.#allows(origin)) {
      response.headers.set('access-control-allow-origin', origin);
      response.headers.set('access-control-expose-headers', 'retry-after, x-request-id');
    }
    return response;
  }

  #allows(origin: string): boolean {
    const origins = this.#cors?.origins ?? [];
    return origins === '*' || origins.includes(origin);
  }
}

function hostOf(origin: string): string | undefined {
  return URL.canParse(origin) ? new URL(origin).host : undefined;
}

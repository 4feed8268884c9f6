import { ApiError } from './error.js';

/** A place in the interface. `*` at the end of a path stands for the rest, at least one character. */
export interface Route<H> {
  readonly method: 'GET' | 'POST';
  readonly path: string;
  readonly handle: H;
}

/** What a request is for, or what is wrong with that. `route` is the place, whatever stands in the path. */
export type Found<H> =
  | { readonly route: string; readonly error?: undefined; readonly handle: H; readonly match: string }
  | { readonly route: string; readonly error: ApiError };

export function routeOf<H>(routes: readonly Route<H>[], method: string, pathname: string): Found<H> {
  const matching = routes.flatMap((route) => {
    const match = matchOf(route.path, pathname);
    return match === undefined ? [] : [{ ...route, match }];
  });
  const [first] = matching;
  if (first === undefined) {
    const error = new ApiError(404, `There is nothing at ${pathname}.`, { code: 'unknown_url' });
    return { route: 'unknown', error };
  }
  const found = matching.find((route) => route.method === method);
  if (found !== undefined) return { route: found.path, handle: found.handle, match: found.match };
  const error = new ApiError(405, `${method} is not allowed here.`, {
    code: 'method_not_allowed',
    headers: { allow: matching.map((route) => route.method).join(', ') },
  });
  return { route: first.path, error };
}

function matchOf(path: string, pathname: string): string | undefined {
  if (!path.endsWith('*')) return path === pathname ? '' : undefined;
  const start = path.slice(0, -1);
  return pathname.startsWith(start) && pathname.length > start.length
    ? pathname.slice(start.length)
    : undefined;
}

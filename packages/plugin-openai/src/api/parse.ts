import type { z } from 'zod';
import { badRequest, unsupported } from '../http/error.js';

/**
 * What OpenAI's interface has and this one has not: by name, the values that ask for nothing. Clients like to send
 * defaults.
 */
export type Unsupported = Readonly<Record<string, readonly unknown[]>>;

/**
 * Checks a request's body. Members that are `null` stand for their defaults; members that nobody knows are ignored.
 *
 * @throws ApiError 400 that names the parameter
 */
export function parse<T>(schema: z.ZodType<T>, body: unknown, refused: Unsupported = {}): T {
  if (typeof body !== 'object' || body === null || Array.isArray(body)) {
    throw badRequest('The body of the request must be a JSON object.', null);
  }
  const given = Object.fromEntries(Object.entries(body).filter(([, value]) => value !== null));
  for (const [name, neutral] of Object.entries(refused)) {
    const value = Object.hasOwn(given, name) ? given[name] : undefined;
    if (value !== undefined && !neutral.some((one) => JSON.stringify(one) === JSON.stringify(value))) {
      throw unsupported(name);
    }
  }
  const parsed = schema.safeParse(given);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  if (issue === undefined) throw badRequest('The request is not valid.', null);
  const { path, message } = deepest(issue);
  const param = pathOf(path);
  throw badRequest(`The parameter ${param} is not valid: ${message}`, param);
}

/** Of a union's alternatives, the one that came furthest into the value says best what is wrong. */
function deepest(issue: z.core.$ZodIssue): {
  readonly path: readonly PropertyKey[];
  readonly message: string;
} {
  if (issue.code !== 'invalid_union') return issue;
  const nested = issue.errors
    .flat()
    .map(deepest)
    .sort((a, b) => b.path.length - a.path.length)[0];
  return nested === undefined
    ? { path: issue.path, message: issue.message }
    : { path: [...issue.path, ...nested.path], message: nested.message };
}

function pathOf(path: readonly PropertyKey[]): string {
  return path.reduce<string>(
    (text, key) =>
      typeof key === 'number' ? `${text}[${key}]` : text === '' ? String(key) : `${text}.${String(key)}`,
    '',
  );
}

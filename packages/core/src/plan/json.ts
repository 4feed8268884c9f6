import { PlanError } from '../errors.js';
import type { PlanErrorCode } from './codes.js';
import { formatPath, show } from './path.js';

/** Longest text that is parsed, in UTF-16 units. A plan for a thousand layers is a hundredth of it. */
const MAX_TEXT = 16 * 1024 * 1024;
/** Deepest nesting that is accepted, far below where recursive code runs out of stack. */
const MAX_DEPTH = 64;

/**
 * A document as a JSON value of bounded depth.
 *
 * Text is parsed; a value is copied as `JSON.stringify` and `JSON.parse` would, undefined properties left out. What
 * JSON cannot say (functions, cycles, NaN) is refused instead of changed, and so is a `__proto__` key, which would
 * set a prototype where it is copied carelessly.
 *
 * @throws PlanError `PLAN_NOT_JSON`, `PLAN_TOO_LARGE`, `PLAN_SCHEMA`
 */
export function toJsonValue(document: unknown): unknown {
  return copy(typeof document === 'string' ? parseText(document) : document, []);
}

function parseText(text: string): unknown {
  if (text.length > MAX_TEXT) {
    throw planError('PLAN_TOO_LARGE', 'The document is too long.', {
      expected: `at most ${MAX_TEXT} characters`,
      found: `${text.length}`,
    });
  }
  try {
    // Editors on Windows still write a byte order mark, which JSON.parse refuses.
    return JSON.parse(text.startsWith('\uFEFF') ? text.slice(1) : text);
  } catch (cause) {
    throw planError('PLAN_NOT_JSON', 'The document is not JSON.', {
      expected: 'a JSON document',
      found: cause instanceof Error ? cause.message : String(cause),
      cause,
    });
  }
}

function copy(value: unknown, path: readonly PropertyKey[]): unknown {
  if (path.length > MAX_DEPTH) {
    throw planError('PLAN_TOO_LARGE', 'The document is nested too deep.', {
      path: `${formatPath(path.slice(0, 4))}...`,
      expected: `at most ${MAX_DEPTH} levels`,
    });
  }
  if (value === null || typeof value === 'string' || typeof value === 'boolean') return value;
  if (typeof value === 'number' && Number.isFinite(value)) return value;
  if (Array.isArray(value)) return Array.from(value, (item, index) => copy(item, [...path, index]));
  if (typeof value === 'object' && isPlain(value)) {
    const fields: Record<string, unknown> = {};
    for (const [key, field] of Object.entries(value)) {
      if (key === '__proto__') {
        throw planError('PLAN_SCHEMA', 'this key is not allowed', {
          path: formatPath([...path, key]),
          hint: 'Remove it.',
        });
      }
      if (field !== undefined) fields[key] = copy(field, [...path, key]);
    }
    return fields;
  }
  throw planError('PLAN_SCHEMA', 'not a value that JSON can hold', {
    path: formatPath(path),
    expected: 'an object, list, string, finite number, boolean or null',
    found: show(value),
  });
}

function isPlain(value: object): boolean {
  const prototype: unknown = Object.getPrototypeOf(value);
  // Prototypes of another realm (a worker, an iframe, a test runner) are equal in kind, not in identity.
  return prototype === null || Object.getPrototypeOf(prototype) === null;
}

function planError(
  code: PlanErrorCode,
  message: string,
  details: { path?: string; expected?: string; found?: string; hint?: string; cause?: unknown },
): PlanError {
  return new PlanError(code, message, details);
}

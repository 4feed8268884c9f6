import { ApiError, badRequest } from './error.js';

export interface BodyLimits {
  /** The most bytes that are read. */
  readonly bytes: number;
  /** How long a body may take to arrive, in milliseconds. */
  readonly milliseconds: number;
  /** How deep arrays and objects may lie in each other. */
  readonly depth: number;
}

/**
 * Reads a request's JSON body. Its bytes are counted as they come; what a client announces only ends it sooner.
 *
 * @throws ApiError 413 for more bytes, 408 for a body that does not end, 400 for one that is not JSON, is nested too
 *   deep, or holds halves of surrogate pairs
 */
export async function readJson(request: Request, limits: BodyLimits): Promise<unknown> {
  const bytes = await readBytes(request, limits);
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch {
    throw badRequest('The body of the request is not valid JSON in UTF-8.', null, 'invalid_json');
  }
  checkValue(value, limits.depth);
  return value;
}

async function readBytes(request: Request, { bytes: limit, milliseconds }: BodyLimits): Promise<Uint8Array> {
  if (Number(request.headers.get('content-length') ?? 0) > limit) throw tooLarge(limit);
  if (request.body === null) return new Uint8Array();
  const reader = request.body.getReader();
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    // Ends the read that is under way.
    reader.cancel().catch(() => {});
  }, milliseconds);
  const chunks: Uint8Array[] = [];
  let size = 0;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (late) throw tooSlow();
      if (done) return Buffer.concat(chunks, size);
      size += value.byteLength;
      if (size > limit) {
        reader.cancel().catch(() => {});
        throw tooLarge(limit);
      }
      chunks.push(value);
    }
  } finally {
    clearTimeout(timer);
  }
}

/** Walks the value without recursion, which a client could drive too deep. */
function checkValue(root: unknown, limit: number): void {
  const left: [value: unknown, depth: number][] = [[root, 0]];
  for (let next = left.pop(); next !== undefined; next = left.pop()) {
    const [value, depth] = next;
    if (typeof value === 'string') checkText(value);
    if (typeof value !== 'object' || value === null) continue;
    if (depth >= limit) {
      throw badRequest(`The body of the request is nested deeper than ${limit}.`, null, 'nested_too_deep');
    }
    if (Array.isArray(value)) for (const item of value) left.push([item, depth + 1]);
    else
      for (const [key, item] of Object.entries(value)) {
        checkText(key);
        left.push([item, depth + 1]);
      }
  }
}

/** Half a surrogate pair is no character: nothing that is written in UTF-8 can hold it. */
function checkText(text: string): void {
  if (/\p{Cs}/u.test(text)) {
    throw badRequest('The body of the request holds half a surrogate pair.', null, 'invalid_unicode');
  }
}

function tooLarge(limit: number): ApiError {
  return new ApiError(413, `The body of the request is larger than ${limit} bytes.`, {
    code: 'request_too_large',
  });
}

function tooSlow(): ApiError {
  return new ApiError(408, 'The body of the request did not end in time.', { code: 'request_timeout' });
}

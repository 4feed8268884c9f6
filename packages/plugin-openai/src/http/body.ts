import { ApiError, badRequest } from './error.js';

/**
 * Reads a request's JSON body.
 *
 * @param limit the most bytes that are read
 * @throws ApiError 413 for more bytes, 400 for a body that is not JSON
 */
export async function readJson(request: Request, limit: number): Promise<unknown> {
  const announced = Number(request.headers.get('content-length') ?? 0);
  if (announced > limit) throw tooLarge(limit);
  const chunks: Uint8Array[] = [];
  let size = 0;
  if (request.body !== null) {
    const reader = request.body.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      size += value.byteLength;
      if (size > limit) {
        await reader.cancel().catch(() => {});
        throw tooLarge(limit);
      }
      chunks.push(value);
    }
  }
  try {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(Buffer.concat(chunks, size));
    return JSON.parse(text);
  } catch {
    throw badRequest('The body of the request is not valid JSON in UTF-8.', null, 'invalid_json');
  }
}

function tooLarge(limit: number): ApiError {
  return new ApiError(413, `The body of the request is larger than ${limit} bytes.`, {
    code: 'request_too_large',
  });
}

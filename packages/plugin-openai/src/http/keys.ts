import { createHash, timingSafeEqual } from 'node:crypto';
import { UsageError } from '@cqil/core';
import { ApiError } from './error.js';

/**
 * Lets only requests with one of the keys pass: `Authorization: Bearer <key>`, or `Basic` with the key as the
 * password, which is what browsers ask a person for. Digests are compared, all of them, each in constant time, so
 * that the time tells nothing of any key.
 *
 * @throws UsageError `API_KEY_INVALID` for an empty key
 */
export class Keys {
  readonly #digests: readonly Buffer[];

  constructor(keys: readonly string[]) {
    if (keys.some((key) => key.trim() === '')) {
      throw new UsageError('API_KEY_INVALID', 'An API key is empty.', {
        expected: 'keys of at least one character',
        found: 'an empty one',
        hint: 'leave it out',
      });
    }
    this.#digests = keys.map(digest);
  }

  /** @throws ApiError 401 */
  check(headers: Headers): void {
    if (this.#digests.length === 0) return;
    const given = keyOf(headers.get('authorization') ?? '');
    const asked = digest(given ?? '');
    let known = false;
    for (const one of this.#digests) known = timingSafeEqual(one, asked) || known;
    if (given !== undefined && known) return;
    throw new ApiError(
      401,
      given === undefined ? 'The request has no API key.' : 'The API key is not valid.',
      {
        code: 'invalid_api_key',
        headers: { 'www-authenticate': 'Basic realm="cqil", charset="UTF-8"' },
      },
    );
  }
}

function keyOf(authorization: string): string | undefined {
  const [, scheme = '', value = ''] = /^(\S+)\s+(\S.*)$/.exec(authorization.trim()) ?? [];
  if (scheme.toLowerCase() === 'bearer') return value;
  if (scheme.toLowerCase() !== 'basic') return undefined;
  const pair = Buffer.from(value, 'base64').toString('utf8');
  return pair.slice(pair.indexOf(':') + 1);
}

function digest(key: string): Buffer {
  return createHash('sha256').update(key, 'utf8').digest();
}

import path from 'node:path';
import { UsageError } from '@cqil/core';

/** One text as the user names it. */
export interface TextSpec {
  /** What sort of text it is: results are told apart by it. Several texts can be of one kind. */
  readonly kind: string;
  /** What `loadText` takes, or `self`. */
  readonly spec: string;
}

const KIND = /^[A-Za-z0-9][\w-]*$/;

/**
 * Reads `kind=path`, `path`, `npm:<package>`, `kind=npm:<package>` or `self`.
 *
 * Without a kind it is the name of the file without its extension, that of the package without its scope, or
 * `self`. What stands before the first `=` is a kind only where it looks like one (letters, digits, `-`, `_`), so
 * `./a=b.txt` is a path.
 *
 * @throws UsageError `TEXT_SPEC`
 */
export function parseTextSpec(given: string): TextSpec {
  const at = given.indexOf('=');
  const named = at > 0 && KIND.test(given.slice(0, at));
  const spec = (named ? given.slice(at + 1) : given).trim();
  const kind = named ? given.slice(0, at) : kindOf(spec);
  if (at === 0 || spec === '' || kind === '') {
    throw new UsageError('TEXT_SPEC', `"${given}" names no text.`, {
      expected: 'kind=path, path, kind=npm:<package>, npm:<package> or self',
      found: given === '' ? 'nothing' : given,
      hint: 'For instance code=samples/code.txt; a path with "=" in it can be given as ./path.',
    });
  }
  return { kind, spec };
}

function kindOf(spec: string): string {
  if (spec.startsWith('npm:')) return spec.slice(spec.lastIndexOf('/') + 1).replace(/^npm:/, '');
  return path.parse(spec).name;
}

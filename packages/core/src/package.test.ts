import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { build, type Metafile } from 'esbuild';
import { describe, expect, it } from 'vitest';
import { PLAN_ERROR_CODES } from './plan/codes.js';

const packageRoot = fileURLToPath(new URL('..', import.meta.url));
const readme = readFileSync(`${packageRoot}/README.md`, 'utf8');

async function bundle(
  contents: string,
  platform: 'browser' | 'node',
): Promise<{ code: string; metafile: Metafile }> {
  const result = await build({
    stdin: { contents, resolveDir: packageRoot, loader: 'ts' },
    alias: { '@cqil/core': `${packageRoot}/src/index.ts` },
    bundle: true,
    format: 'esm',
    platform,
    target: 'es2023',
    write: false,
    metafile: true,
    logLevel: 'silent',
  });
  return { code: result.outputFiles[0]!.text, metafile: result.metafile };
}

it('bundles for a browser, without anything of node', async () => {
  const { code, metafile } = await bundle(`export * from '@cqil/core';`, 'browser');
  // platform: browser leaves nothing of node resolvable, so a built-in would have failed the build; look all the same.
  expect(Object.values(metafile.outputs).flatMap((output) => output.imports)).toEqual([]);
  expect(code).not.toMatch(/\b(from|import|require)\s*\(?\s*["'](node:|fs|path|os|crypto|url)\b/);
  expect(code).not.toMatch(/\b(process|Buffer|__dirname)\s*[.[]/);
});

describe('README', () => {
  const snippets = [...readme.matchAll(/```ts\n([\s\S]*?)```/g)].map((match) => match[1]!);

  it('has snippets', () => {
    expect(snippets.length).toBeGreaterThan(3);
  });

  // A snippet prints with console.log, and says in a comment behind it what comes out: `// → 3`.
  it.each(snippets.map((code) => [code.split('\n').find((line) => !line.startsWith('import'))!, code]))(
    'snippet that begins with %s prints what it says',
    async (_, snippet) => {
      const expected = [...snippet.matchAll(/console\.log\(.*\/\/ → (.*)/g)].map((match) => match[1]);
      expect(expected.length).toBeGreaterThan(0);
      const { code } = await bundle(snippet.replaceAll('console.log(', 'globalThis.readmePrint('), 'node');
      const printed: string[] = [];
      const scope = globalThis as { readmePrint?: (...values: unknown[]) => void };
      scope.readmePrint = (...values) =>
        printed.push(
          values.map((value) => (typeof value === 'string' ? value : JSON.stringify(value))).join(' '),
        );
      try {
        await import(
          /* @vite-ignore */ `data:text/javascript;base64,${Buffer.from(code).toString('base64')}`
        );
      } finally {
        delete scope.readmePrint;
      }
      expect(printed).toEqual(expected);
    },
  );

  it('lists every code of a plan error', () => {
    for (const [code, meaning] of Object.entries(PLAN_ERROR_CODES)) {
      expect(readme.replaceAll(/ +/g, ' ')).toContain(`| \`${code}\` | ${meaning} |`);
    }
  });

  it('names everything that is exported', async () => {
    const values = Object.keys(await import('./index.js'));
    for (const name of values) expect(readme).toContain(`\`${name}`);
  });
});

import { cpSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { testModel } from '../src/test-model.js';
import { type Packed, publicPackages, readManifest, root, run } from './packages.js';
import type { Snippet } from './snippets.js';

/**
 * An empty project of a user: ECMAScript modules, strict TypeScript, and our packages from their tarballs.
 *
 * It holds what snippets call for: `model` and `models/tiny` (a fixture) and `models/smollm2` (the real model).
 */
export async function makeConsumer(folder: string, tarballs: readonly Packed[]): Promise<void> {
  mkdirSync(join(folder, 'models'), { recursive: true });
  const own = readManifest(root) as { devDependencies?: Record<string, string> };
  writeJson(join(folder, 'package.json'), { name: 'consumer', private: true, type: 'module' });
  writeJson(join(folder, 'tsconfig.json'), {
    compilerOptions: {
      target: 'ES2023',
      module: 'NodeNext',
      strict: true,
      exactOptionalPropertyTypes: true,
      noUncheckedIndexedAccess: true,
      skipLibCheck: true,
      outDir: 'out',
      rootDir: 'src',
      types: ['node'],
    },
    include: ['src'],
  });
  const peers = publicPackages().flatMap(({ manifest }) => Object.entries(manifest.peerDependencies ?? {}));
  await run(
    'npm',
    [
      'install',
      '--no-audit',
      '--no-fund',
      ...tarballs.map(({ file }) => file),
      ...peers.map(([name, range]) => `${name}@${range}`),
      `typescript@${own.devDependencies?.typescript}`,
      `@types/node@${own.devDependencies?.['@types/node']}`,
    ],
    folder,
  );
  for (const name of ['models/tiny', 'model']) {
    cpSync(join(root, 'testdata/optimum/llama'), join(folder, name), { recursive: true });
  }
  symlinkSync(testModel('q4'), join(folder, 'models/smollm2'));
}

/** Puts snippets into the project, one file each. */
export function addSnippets(folder: string, snippets: readonly Snippet[]): void {
  mkdirSync(join(folder, 'src'), { recursive: true });
  for (const [index, { code, place }] of snippets.entries()) {
    // Without an import or export a file is a script, and its top-level await an error.
    writeFileSync(join(folder, 'src', snippetFile(index)), `// ${place}\n${code}\nexport {};\n`);
  }
}

export function snippetFile(index: number): string {
  return `snippet-${index}.ts`;
}

function writeJson(file: string, value: unknown): void {
  writeFileSync(file, `${JSON.stringify(value, null, 2)}\n`);
}

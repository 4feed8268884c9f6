import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { publicPackages, root } from './packages.js';

/** A piece of code in a README that a reader may copy and run. */
export interface Snippet {
  /** `packages/core/README.md:31`, where its fence is. */
  readonly place: string;
  readonly code: string;
  /** What it says that its `console.log`s print: the text behind `// →`, in order. */
  readonly prints: readonly string[];
  /** False for fences marked `no-run`: those need a hub, a server or a person. They are type-checked like all. */
  readonly runs: boolean;
}

/** All TypeScript snippets of the READMEs that users see. */
export function readmeSnippets(): Snippet[] {
  const files = [
    'README.md',
    ...publicPackages().map(({ folder }) => join(folder, 'README.md').slice(root.length)),
  ];
  return files.flatMap((file) => snippetsOf(file, readFileSync(join(root, file), 'utf8')));
}

export function snippetsOf(file: string, markdown: string): Snippet[] {
  return [...markdown.matchAll(/^```(?:ts|typescript)([^\n]*)\n([\s\S]*?)^```/gm)].map((match) => {
    const [, info = '', code = ''] = match;
    const line = markdown.slice(0, match.index).split('\n').length;
    return {
      place: `${file}:${line}`,
      code,
      prints: [...code.matchAll(/console\.log\(.*\/\/ → (.*)/g)].map((found) => found[1] as string),
      runs: !/\bno-run\b/.test(info),
    };
  });
}

import { expect, it } from 'vitest';
import { snippetsOf } from './snippets.js';

it('finds TypeScript snippets, where they are, what they print, and whether they run', () => {
  const markdown = [
    '# A',
    '```sh',
    'npm i',
    '```',
    '```ts',
    'console.log(1 + 1); // → 2',
    '```',
    '```ts no-run',
    'serve();',
    '```',
  ].join('\n');
  expect(snippetsOf('README.md', markdown)).toEqual([
    { place: 'README.md:5', code: 'console.log(1 + 1); // → 2\n', prints: ['2'], runs: true },
    { place: 'README.md:8', code: 'serve();\n', prints: [], runs: false },
  ]);
});

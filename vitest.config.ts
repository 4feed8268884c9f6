import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';

const source = (name: string) => fileURLToPath(new URL(`./packages/${name}/src/index.ts`, import.meta.url));

const resolve = {
  alias: Object.fromEntries(
    ['core', 'planner', 'runtime-gpu', 'plugin-transformers', 'plugin-openai'].map((name) => [
      `@cqil/${name}`,
      source(name),
    ]),
  ),
};

/**
 * unit: beside the code, needs nothing but the repository.
 * e2e: the built command line as a process.
 * model: needs the real model (`.cache/models`, brought by `npm run setup:model`) and the built packages.
 * release: packs the built packages and uses them as a user would; needs the package index.
 */
export default defineConfig({
  test: {
    projects: [
      {
        resolve,
        test: {
          name: 'unit',
          include: ['packages/*/src/**/*.test.ts', 'tools/**/*.test.ts'],
          exclude: ['**/*.model.test.ts', '**/*.release.test.ts', '**/node_modules/**', '**/dist/**'],
          testTimeout: 120_000,
          hookTimeout: 120_000,
          pool: 'forks',
          maxWorkers: '100%',
        },
      },
      {
        test: {
          name: 'e2e',
          hookTimeout: 300_000,
          include: ['e2e/**/*.test.ts'],
          exclude: ['**/*.model.test.ts'],
          testTimeout: 300_000,
          pool: 'forks',
          maxWorkers: '100%',
        },
      },
      {
        test: {
          name: 'release',
          include: ['tools/release/*.release.test.ts'],
          testTimeout: 600_000,
          hookTimeout: 600_000,
          pool: 'forks',
          fileParallelism: false,
        },
      },
      {
        resolve,
        test: {
          name: 'model',
          include: ['packages/*/src/**/*.model.test.ts', 'e2e/**/*.model.test.ts'],
          testTimeout: 600_000,
          hookTimeout: 600_000,
          pool: 'forks',
          fileParallelism: false,
        },
      },
    ],
  },
});

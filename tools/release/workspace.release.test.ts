import { existsSync } from 'node:fs';
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { publicPackages, root, run } from './packages.js';

const nx = (...args: string[]) =>
  run(process.execPath, [join(root, 'node_modules/nx/dist/bin/nx.js'), ...args], root);
const build = () => nx('run-many', '-t', 'build', '--output-style=static');

describe('the task graph', () => {
  it('does nothing on a second build with nothing changed', async () => {
    await build();
    const { stdout } = await build();
    const all = publicPackages().length;
    expect(stdout).toContain(
      `read the output from the cache instead of running the command for ${all} out of ${all}`,
    );
  });

  it('keeps the build when only tests and texts change', async () => {
    const file = join(root, 'packages/core/src/made-up.test.ts');
    await build();
    await writeFile(file, 'export {};\n');
    try {
      const { stdout } = await build();
      const all = publicPackages().length;
      expect(stdout).toContain(`for ${all} out of ${all}`);
    } finally {
      await rm(file);
    }
  });

  // A tree without history (an unpacked archive) has nothing that could be affected.
  it.runIf(existsSync(join(root, '.git')))('knows what a change affects', async () => {
    const affected = async (file: string): Promise<string[]> => {
      const { stdout } = await nx('show', 'projects', '--affected', `--files=${file}`, '--json');
      return (JSON.parse(stdout) as string[]).filter((name) => name.startsWith('@cqil/')).sort();
    };
    expect(await affected('packages/cli/src/cli.ts')).toEqual(['@cqil/cli']);
    expect(await affected('packages/core/src/index.ts')).toEqual(
      expect.arrayContaining(['@cqil/core', '@cqil/planner', '@cqil/cli']),
    );
    expect(await affected('docs/adr/0001-house-and-tools.md')).toEqual([]);
  });
});

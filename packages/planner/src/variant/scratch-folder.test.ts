import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ScratchFolder } from './scratch-folder.js';

describe('ScratchFolder', () => {
  let temporary: string;
  let module: string;
  beforeAll(async () => {
    temporary = await mkdtemp(path.join(tmpdir(), 'scratch-test-'));
    const source = await readFile(fileURLToPath(new URL('./scratch-folder.ts', import.meta.url)), 'utf8');
    const { outputText } = ts.transpileModule(source, {
      compilerOptions: { module: ts.ModuleKind.ESNext, target: ts.ScriptTarget.ES2022 },
    });
    module = path.join(temporary, 'scratch-folder.mjs');
    await writeFile(module, outputText);
  });
  afterAll(() => rm(temporary, { recursive: true }));

  /** Runs code in a process of its own that has made a folder and printed its path. */
  async function owner(then: string): Promise<{ child: ChildProcess; folder: string }> {
    const code = `import { ScratchFolder } from ${JSON.stringify(module)};
      const folder = await ScratchFolder.create();
      process.stdout.write(folder.path);
      ${then}`;
    const child = spawn(process.execPath, ['--input-type=module', '-e', code], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const [chunk] = (await once(child.stdout!, 'data')) as [Buffer];
    return { child, folder: chunk.toString() };
  }

  it('is removed by its owner, once or twice', async () => {
    const folder = await ScratchFolder.create();
    expect(existsSync(folder.path)).toBe(true);
    await folder.remove();
    await folder.remove();
    expect(existsSync(folder.path)).toBe(false);
    expect(process.listeners('SIGINT').map((listener) => listener.name)).not.toContain('onSignal');
  });

  it('is removed when the process exits', async () => {
    const { child, folder } = await owner('setTimeout(() => process.exit(3), 50);');
    const [code] = await once(child, 'exit');
    expect(code).toBe(3);
    expect(existsSync(folder)).toBe(false);
  });

  it('is removed when the process is interrupted, which still ends it', async () => {
    const { child, folder } = await owner('setInterval(() => {}, 1000);');
    expect(existsSync(folder)).toBe(true);
    child.kill('SIGINT');
    const [, signal] = await once(child, 'exit');
    expect(signal).toBe('SIGINT');
    expect(existsSync(folder)).toBe(false);
  });

  it('leaves an interrupt to those who handle it', async () => {
    const { child, folder } = await owner(`setInterval(() => {}, 1000);
      process.on('SIGINT', () => { folder.remove().then(() => process.exit(7)); });`);
    await new Promise((resolve) => setTimeout(resolve, 100));
    child.kill('SIGINT');
    const [code] = await once(child, 'exit');
    expect(code).toBe(7);
    expect(existsSync(folder)).toBe(false);
  });
});

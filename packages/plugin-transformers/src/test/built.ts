import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import { build } from 'tsup';

const root = fileURLToPath(new URL('../../../../', import.meta.url));
const own = join(root, 'packages/plugin-transformers');

export interface BuiltRegister extends Disposable {
  /** `file:` URL of `@cqil/plugin-transformers/register`, built from the sources. */
  readonly url: string;
  readonly file: string;
  /** `file:` URL of a module with `registerBackend`. */
  readonly backend: string;
}

/** Builds the entry that programs import, for processes of their own: those run JavaScript. */
export async function buildRegister(): Promise<BuiltRegister> {
  // In the repository, so that what it imports is found from there.
  mkdirSync(join(root, '.cache'), { recursive: true });
  const folder = mkdtempSync(join(root, '.cache', 'register-'));
  await build({
    config: false,
    silent: true,
    entry: { register: join(own, 'src/register.ts'), backend: join(own, 'src/backend/register.ts') },
    splitting: false,
    outDir: folder,
    format: ['esm'],
    target: 'node20',
    outExtension: () => ({ js: '.mjs' }),
    noExternal: [/^@cqil\//],
    external: ['koffi', 'onnxruntime-node'],
    esbuildOptions: (options) => {
      options.alias = Object.fromEntries(
        ['core', 'runtime-gpu'].map((name) => [
          `@cqil/${name}`,
          join(root, 'packages', name, 'src/index.ts'),
        ]),
      );
    },
  });
  const file = join(folder, 'register.mjs');
  return {
    file,
    url: pathToFileURL(file).href,
    backend: pathToFileURL(join(folder, 'backend.mjs')).href,
    [Symbol.dispose]: () => rmSync(folder, { recursive: true, force: true }),
  };
}

/** Runs a program in a process of its own, in this package's folder; what it prints last is JSON. */
export async function runProgram(
  code: string,
  { commonjs = false, flags = [] as string[] } = {},
): Promise<unknown> {
  const type = commonjs ? 'commonjs' : 'module';
  const { stdout } = await promisify(execFile)(
    process.execPath,
    [...flags, `--input-type=${type}`, '-e', code],
    { cwd: own, maxBuffer: 2 ** 26 },
  );
  return JSON.parse(stdout.trimEnd().split('\n').at(-1)!);
}

import { execFile } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

export const root = fileURLToPath(new URL('../..', import.meta.url));

export interface Manifest {
  readonly name: string;
  readonly version: string;
  readonly private?: boolean;
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly peerDependencies?: Readonly<Record<string, string>>;
  readonly exports?: Readonly<Record<string, unknown>>;
  readonly bin?: Readonly<Record<string, string>>;
}

export interface PublicPackage {
  readonly name: string;
  /** Absolute. */
  readonly folder: string;
  readonly manifest: Manifest;
}

/** The packages that are published. */
export function publicPackages(): PublicPackage[] {
  const folder = join(root, 'packages');
  return readdirSync(folder)
    .map((name) => join(folder, name))
    .map((path) => ({ folder: path, manifest: readManifest(path) }))
    .filter(({ manifest }) => manifest.private !== true)
    .map(({ folder: path, manifest }) => ({ name: manifest.name, folder: path, manifest }));
}

export function readManifest(folder: string): Manifest {
  return JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as Manifest;
}

export interface Packed {
  /** The tarball, absolute. */
  readonly file: string;
  /** Paths in it. */
  readonly contents: readonly string[];
}

/** Packs a package as it would be published. */
export async function pack({ folder }: PublicPackage, destination: string): Promise<Packed> {
  const { stdout } = await run(
    'npm',
    ['pack', '--json', '--ignore-scripts', '--pack-destination', destination],
    folder,
  );
  const [entry] = Object.values(
    JSON.parse(stdout) as Record<string, { filename: string; files: { path: string }[] }>,
  );
  if (entry === undefined) throw new Error(`npm packed nothing in ${folder}`);
  const contents = entry.files.map(({ path }) => path);
  return { file: join(destination, entry.filename.replace('@', '').replace('/', '-')), contents };
}

const exec = promisify(execFile);

export interface Outcome {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a program; a bad exit code is an error that shows what the program said. */
export async function run(command: string, args: readonly string[], cwd: string): Promise<Outcome> {
  const outcome = await attempt(command, args, cwd);
  if (outcome.code === 0) return outcome;
  const words = [command, ...args].join(' ');
  throw new Error(`${words} ended with ${outcome.code}\n${outcome.stdout}\n${outcome.stderr}`);
}

/** Runs a program, whatever comes of it. */
export async function attempt(command: string, args: readonly string[], cwd: string): Promise<Outcome> {
  try {
    const { stdout, stderr } = await exec(command, [...args], {
      cwd,
      env: environment(),
      maxBuffer: 64 * 1024 * 1024,
      timeout: 540_000,
    });
    return { code: 0, stdout, stderr };
  } catch (error) {
    const {
      code,
      stdout = '',
      stderr = '',
    } = error as { code?: number | string; stdout?: string; stderr?: string };
    if (typeof code !== 'number') throw error;
    return { code, stdout, stderr };
  }
}

/** Ours, without what npm and vitest put there for this repository's own scripts. */
function environment(): NodeJS.ProcessEnv {
  const foreign =
    /^(npm_(lifecycle|package|command|execpath|node_execpath)|VITEST|NODE_ENV|NODE_OPTIONS|INIT_CWD|NX_)/;
  const kept = Object.entries(process.env).filter(([name]) => !foreign.test(name));
  return { ...Object.fromEntries(kept), ONNXRUNTIME_NODE_INSTALL: 'skip', NO_COLOR: '1' };
}

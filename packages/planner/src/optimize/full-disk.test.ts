import path from 'node:path';
import { afterAll, afterEach, beforeAll, expect, it, vi } from 'vitest';
import { Bench } from './testing/runs.js';

/** A disk that takes some more writes below a folder, and then none. */
const disk = vi.hoisted(() => ({ folder: '', left: Number.POSITIVE_INFINITY, refused: [] as string[] }));

vi.mock('node:fs/promises', async (original) => {
  const fs = await original<typeof import('node:fs/promises')>();
  const write = (file: unknown, syscall: string) => {
    const name = String(file);
    if (disk.folder === '' || !name.startsWith(disk.folder)) return;
    disk.left -= 1;
    if (disk.left >= 0) return;
    disk.refused.push(`${syscall} ${name.slice(disk.folder.length)}`);
    throw Object.assign(new Error(`ENOSPC: no space left on device, ${syscall}`), {
      code: 'ENOSPC',
      errno: -28,
      syscall,
    });
  };
  const before =
    <A extends unknown[], R>(syscall: string, place: number, call: (...args: A) => Promise<R>) =>
    async (...args: A): Promise<R> => {
      write(args[place], syscall);
      return call(...args);
    };
  const changed = {
    writeFile: before('write', 0, fs.writeFile as (...args: unknown[]) => Promise<void>),
    appendFile: before('write', 0, fs.appendFile as (...args: unknown[]) => Promise<void>),
    mkdir: before('mkdir', 0, fs.mkdir as (...args: unknown[]) => Promise<unknown>),
    copyFile: before('copyfile', 1, fs.copyFile as (...args: unknown[]) => Promise<void>),
    open: async (file: string, flags?: string, mode?: number) => {
      const handle = await fs.open(file, flags, mode);
      if (flags === undefined || flags === 'r') return handle;
      for (const method of ['write', 'appendFile', 'writeFile'] as const) {
        const call = (handle[method] as (...args: unknown[]) => Promise<unknown>).bind(handle);
        Object.assign(handle, {
          [method]: before('write', 0, async (_: string, ...args) => call(...args)).bind(null, file),
        });
      }
      return handle;
    },
  };
  return { ...fs, ...changed, default: { ...fs, ...changed } };
});

let bench: Bench;
let whole: Awaited<ReturnType<Bench['result']>>;
let writes: number;
const small = {
  budget: 4,
  tokens: { calibration: 1600, development: 320, evaluation: 64 },
  costTokens: 64,
  searchTokens: 64,
};
beforeAll(async () => {
  bench = await Bench.open();
  const out = bench.out();
  Object.assign(disk, { folder: out, left: 1e6 });
  await bench.run(out, small);
  writes = 1e6 - disk.left;
  disk.folder = '';
  whole = await bench.result(out);
});
afterEach(() => {
  disk.folder = '';
});
afterAll(() => bench.close());

it.each([0, 0.05, 0.2, 0.5, 0.8, 0.999])(
  'a disk that is full after %d of all writes: told so, nothing half-written, gone on with',
  async (share) => {
    const out = bench.out();
    Object.assign(disk, { folder: out, left: Math.floor(share * writes), refused: [] });
    await expect(bench.run(out, small)).rejects.toMatchObject({
      name: 'EnvironmentError',
      code: 'WRITE_FAILED',
      message: expect.stringContaining('ENOSPC'),
    });
    expect(disk.refused.length).toBeGreaterThan(0);
    disk.folder = '';
    expect(await bench.left()).not.toContain(path.basename(out));
    await bench.run(out, small);
    expect(await bench.result(out)).toMatchObject({ report: whole.report, files: whole.files });
  },
);

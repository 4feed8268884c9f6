import { type FileHandle, open } from 'node:fs/promises';
import { createRequire } from 'node:module';
import path from 'node:path';
import { InferenceError } from '../../errors.js';

/** The environment variable that names another build of ONNX Runtime's shared library. */
export const ORT_LIBRARY_VARIABLE = 'CQIL_ORT_LIBRARY';

/** A shared library of ONNX Runtime on disk. */
export interface LibraryFile {
  readonly file: string;
  /** `package`: the one inside onnxruntime-node. `user`: named by `CQIL_ORT_LIBRARY`. */
  readonly origin: 'package' | 'user';
}

const NAMES: Readonly<Record<string, string>> = {
  linux: 'libonnxruntime.so.1',
  darwin: 'libonnxruntime.1.dylib',
  win32: 'onnxruntime.dll',
};

/** Where the shared library is that this process is to use. Nothing is read. */
export function libraryFile(environment: NodeJS.ProcessEnv = process.env): LibraryFile {
  const named = environment[ORT_LIBRARY_VARIABLE];
  if (named !== undefined && named !== '') return { file: path.resolve(named), origin: 'user' };
  const root = path.dirname(createRequire(import.meta.url).resolve('onnxruntime-node/package.json'));
  const name = NAMES[process.platform] ?? 'libonnxruntime.so.1';
  return { file: path.join(root, 'bin', 'napi-v6', process.platform, process.arch, name), origin: 'package' };
}

/** `e_machine` of the ELF header (System V ABI) by Node's name of the processor. */
const ELF_MACHINES: Readonly<Record<string, number>> = {
  x64: 62,
  arm64: 183,
  arm: 40,
  ia32: 3,
  riscv64: 243,
};

/**
 * Looks at the head of a shared library before the system's loader maps it: a file that is cut short passes the
 * loader and ends the process later, where a page is missing.
 *
 * @throws InferenceError `ORT_LIBRARY_UNUSABLE`
 */
export async function checkLibraryFile({ file, origin }: LibraryFile): Promise<void> {
  const handle = await open(file, 'r').catch((cause: unknown) => {
    throw unusable(file, origin, 'cannot be opened', 'a shared library', reasonOf(cause));
  });
  try {
    if (process.platform === 'linux') await checkElf(handle, file, origin);
  } finally {
    await handle.close();
  }
}

async function checkElf(handle: FileHandle, file: string, origin: LibraryFile['origin']): Promise<void> {
  const { size } = await handle.stat();
  const head = await readAt(handle, 0, 64);
  if (head.length < 64 || head.readUInt32BE(0) !== 0x7f454c46) {
    throw unusable(file, origin, 'is no shared library', 'an ELF file', `${size} bytes of something else`);
  }
  const machine = head.readUInt16LE(18);
  const wanted = ELF_MACHINES[process.arch];
  if (wanted !== undefined && machine !== wanted) {
    const found = Object.entries(ELF_MACHINES).find(([, number]) => number === machine)?.[0];
    throw unusable(file, origin, 'is for another processor', process.arch, found ?? `machine ${machine}`);
  }
  // 64-bit layout: program headers at e_phoff, e_phnum of e_phentsize bytes each.
  if (head[4] !== 2) return;
  const table = await readAt(
    handle,
    Number(head.readBigUInt64LE(32)),
    head.readUInt16LE(54) * head.readUInt16LE(56),
  );
  const entry = head.readUInt16LE(54);
  let end = 0;
  for (let at = 0; entry >= 56 && at + entry <= table.length; at += entry) {
    end = Math.max(end, Number(table.readBigUInt64LE(at + 8) + table.readBigUInt64LE(at + 32)));
  }
  if (end === 0 || end > size) {
    throw unusable(file, origin, 'is cut short', `${end} bytes at least`, `${size} bytes`);
  }
}

async function readAt(handle: FileHandle, position: number, length: number): Promise<Buffer> {
  const buffer = Buffer.alloc(length);
  const { bytesRead } = await handle.read(buffer, 0, length, position);
  return buffer.subarray(0, bytesRead);
}

/** The error for a library that cannot be used, with what to do by where it came from. */
export function unusable(
  file: string,
  origin: LibraryFile['origin'],
  what: string,
  expected: string,
  found: string,
): InferenceError {
  return new InferenceError('ORT_LIBRARY_UNUSABLE', `The ONNX Runtime library ${file} ${what}.`, {
    expected,
    found,
    hint:
      origin === 'user'
        ? `Point ${ORT_LIBRARY_VARIABLE} at another build of ONNX Runtime, or unset it.`
        : 'Install onnxruntime-node anew.',
  });
}

export function reasonOf(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}

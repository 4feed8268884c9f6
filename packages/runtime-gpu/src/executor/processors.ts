import type { OrtLibrary } from '../session/native/library.js';

/** Bytes of a set of processors: 1,024 of them. */
const BYTES = 128;

/** The processors that this process may run on, in order; none where the platform does not say. */
export function allowedProcessors({ ffi }: OrtLibrary): number[] {
  if (process.platform !== 'linux') return [];
  try {
    const get = ffi.load('libc.so.6').func('int sched_getaffinity(int, size_t, void *)');
    const mask = new Uint8Array(BYTES);
    if (get(0, BYTES, mask) !== 0) return [];
    return Array.from({ length: BYTES * 8 }, (_, i) => i).filter((i) => (mask[i >> 3]! >> (i & 7)) & 1);
  } catch {
    // Another C library: threads go where the system puts them.
    return [];
  }
}

/** The processor of each device `cpu:k`: the k-th that is allowed, where there are enough for all. */
export function processorsOf(devices: readonly string[], allowed: readonly number[]): (number | undefined)[] {
  const numbers = devices.map((device) => Number(/^cpu:(\d+)$/.exec(device)?.[1] ?? Number.NaN));
  const enough = numbers.every((k) => k < allowed.length);
  return numbers.map((k) => (enough ? allowed[k] : undefined));
}

// @ts-check
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';

/** Bytes of a process's memory that are in RAM. @param {number} pid */
export function residentBytes(pid) {
  if (process.platform === 'linux') {
    const found = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'));
    return Number(found?.[1] ?? 0) * 1024;
  }
  return Number(execFileSync('ps', ['-o', 'rss=', '-p', String(pid)], { encoding: 'utf8' })) * 1024;
}

/** What is no growth whatever the share: pages that an allocator keeps, tables that fill once. */
const SLACK = 24 * 2 ** 20;

/** Memory against the share of the work that is done. */
export class MemoryCurve {
  /** @type {{ done: number, bytes: number }[]} */
  samples = [];

  /** @param {number} done from 0 to 1 @param {number} bytes */
  add(done, bytes) {
    this.samples.push({ done, bytes });
  }

  /** The median between two shares of the work. @param {number} from @param {number} to */
  #median(from, to) {
    const bytes = this.samples
      .filter(({ done }) => done >= from && done <= to)
      .map((sample) => sample.bytes)
      .sort((a, b) => a - b);
    return bytes[bytes.length >> 1] ?? 0;
  }

  /**
   * Behind the warm-up (a third of the work) against the end; and at the middle between, since a leak grows all the time.
   *
   * @param {number} allowed share of growth that is none
   */
  verdict(allowed) {
    const warm = this.#median(0.3, 0.45);
    const middle = this.#median(0.6, 0.75);
    const end = this.#median(0.85, 1);
    const flat = end <= Math.max(warm * (1 + allowed), warm + SLACK);
    return { warm, middle, end, growth: end / warm - 1, flat };
  }
}

/** @param {number} bytes */
export function mebibytes(bytes) {
  return `${(bytes / 2 ** 20).toFixed(0)} MiB`;
}

// @ts-check
/**
 * `npm run lock:complete`: adds the binary packages of other platforms that package-lock.json leaves out.
 *
 * A mirror of the package registry often holds the binaries of its own platform only. `npm install` then writes a lock
 * file without the others, and `npm ci` refuses it: everywhere, for those packages are missing. What an entry
 * needs is known without the registry: the version that the parent asks for, and the platform, which is the name.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { root } from './steps.mjs';

/**
 * @typedef {{
 *   version: string, dev?: boolean, optional?: boolean, os?: string[], cpu?: string[], libc?: string[],
 *   optionalDependencies?: Record<string, string>,
 * }} Entry
 * @typedef {{ packages: Record<string, Entry> }} Lock
 */

const SYSTEMS = [
  'aix',
  'android',
  'darwin',
  'freebsd',
  'linux',
  'netbsd',
  'openbsd',
  'openharmony',
  'sunos',
  'win32',
];
const PROCESSORS = ['arm64', 'arm', 'ia32', 'loong64', 'mips64el', 'ppc64', 'riscv64', 's390x', 'x64'];

/** The platform a binary package is for, as its name tells it; @param {string} name */
export function platformOf(name) {
  const parts = name.split(/[-/]/);
  const os = SYSTEMS.filter((system) => parts.includes(system));
  const cpu = PROCESSORS.filter((processor) => parts.includes(processor));
  if (os.length !== 1 || cpu.length !== 1) return undefined;
  const musl = parts.some((part) => part.startsWith('musl'));
  const libc =
    os[0] !== 'linux'
      ? undefined
      : musl
        ? ['musl']
        : parts.some((part) => part.startsWith('gnu'))
          ? ['glibc']
          : undefined;
  return { os, cpu, ...(libc === undefined ? {} : { libc }) };
}

/** The lock with the entries that it lacks, and their names; @param {Lock} lock */
export function completeLock(lock) {
  /** @type {string[]} */
  const added = [];
  const packages = { ...lock.packages };
  for (const [place, { dev, optionalDependencies = {} }] of Object.entries(lock.packages)) {
    for (const [name, version] of Object.entries(optionalDependencies)) {
      const platform = platformOf(name);
      if (platform === undefined || !/^\d+\.\d+\.\d+$/.test(version) || isThere(packages, place, name))
        continue;
      packages[`node_modules/${name}`] = {
        version,
        cpu: platform.cpu,
        ...(dev ? { dev } : {}),
        ...(platform.libc ? { libc: platform.libc } : {}),
        optional: true,
        os: platform.os,
      };
      added.push(name);
    }
  }
  const sorted = Object.entries(packages).sort(([a], [b]) => a.localeCompare(b, 'en'));
  return { lock: { ...lock, packages: Object.fromEntries(sorted) }, added };
}

/** Node's own way of looking: beside the package that asks, then up; @param {Record<string, Entry>} packages @param {string} place @param {string} name */
function isThere(packages, place, name) {
  for (let at = place; ; at = at.slice(0, Math.max(0, at.lastIndexOf('node_modules/'))).replace(/\/$/, '')) {
    if (`${at === '' ? '' : `${at}/`}node_modules/${name}` in packages) return true;
    if (at === '') return false;
  }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const file = join(root, 'package-lock.json');
  const { lock, added } = completeLock(JSON.parse(readFileSync(file, 'utf8')));
  if (added.length > 0) writeFileSync(file, `${JSON.stringify(lock, null, 2)}\n`);
  process.stderr.write(added.length === 0 ? 'The lock file is complete.\n' : `Added ${added.join(', ')}\n`);
}

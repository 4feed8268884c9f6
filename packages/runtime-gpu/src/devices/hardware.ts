import { readdir, readFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';

export type GpuVendor = 'nvidia' | 'amd' | 'intel' | 'apple' | 'other';

/** What the operating system says is there; whether it can be used is another question. */
export interface Hardware {
  readonly platform: NodeJS.Platform;
  readonly arch: string;
  readonly cpu: string;
  /** Threads that this process may use at once. */
  readonly cores: number;
  /** Cores that these threads are on, each counted once; absent where the system does not say. */
  readonly physicalCores?: number;
  /** CPUs' worth of time that a container may use; absent without a limit. */
  readonly cpuLimit?: number;
  readonly memoryBytes: number;
  /** What a container may use; absent without a limit. */
  readonly memoryLimitBytes?: number;
  /** Parts of the memory that are nearer to some cores than to others. */
  readonly numaNodes: number;
  /** Of those that matter for 8-bit products: `avx2`, `avx512f`, `avx512_vnni`, `avx_vnni`, `amx_int8`, `asimddp`, `i8mm`. */
  readonly instructionSets: readonly string[];
  readonly gpus: readonly GpuVendor[];
  /** Version of NVIDIA's kernel driver, where it is loaded. */
  readonly nvidiaDriver?: string;
  /** Vulkan drivers that are installed, by the names of their manifests. */
  readonly vulkanDrivers: readonly string[];
}

const INSTRUCTION_SETS = ['avx2', 'avx512f', 'avx512_vnni', 'avx_vnni', 'amx_int8', 'asimddp', 'i8mm'];

const VENDORS: Readonly<Record<string, GpuVendor>> = {
  '0x10de': 'nvidia',
  '0x1002': 'amd',
  '0x8086': 'intel',
};

/** @param root where the file system begins; for tests */
export async function readHardware(root = '/'): Promise<Hardware> {
  const file = (name: string) => readFile(path.join(root, name), 'utf8').catch(() => undefined);
  const names = (folder: string) => readdir(path.join(root, folder)).catch((): string[] => []);
  const cpuInfo = (await file('proc/cpuinfo')) ?? '';
  const physical = physicalCores(cpuInfo);
  const flags = new Set((/^(?:flags|Features)\s*:\s*(.*)$/m.exec(cpuInfo)?.[1] ?? '').split(/\s+/));
  const cpuLimit = quota(await file('sys/fs/cgroup/cpu.max'));
  const memoryLimit = Number.parseInt((await file('sys/fs/cgroup/memory.max')) ?? '', 10);
  const nodes = (await names('sys/devices/system/node')).filter((name) => /^node\d+$/.test(name));
  const driver = /Kernel Module\s+(?:for \S+\s+)?(\S+)/.exec(
    (await file('proc/driver/nvidia/version')) ?? '',
  )?.[1];
  const manifests = await Promise.all(
    ['usr/share/vulkan/icd.d', 'etc/vulkan/icd.d', 'usr/local/share/vulkan/icd.d'].map(names),
  );
  return {
    platform: process.platform,
    arch: process.arch,
    cpu: os.cpus()[0]?.model.trim() ?? 'unknown',
    cores: os.availableParallelism(),
    ...(physical === undefined ? {} : { physicalCores: physical }),
    ...(cpuLimit === undefined ? {} : { cpuLimit }),
    memoryBytes: os.totalmem(),
    ...(Number.isFinite(memoryLimit) ? { memoryLimitBytes: memoryLimit } : {}),
    numaNodes: Math.max(1, nodes.length),
    instructionSets: INSTRUCTION_SETS.filter((name) => flags.has(name)),
    gpus: await gpus(root),
    ...(driver === undefined ? {} : { nvidiaDriver: driver }),
    vulkanDrivers: manifests
      .flat()
      .filter((name) => name.endsWith('.json'))
      .map((name) => name.replace(/(_icd)?(\.\w+)?\.json$/, ''))
      .sort(),
  };
}

/** Pairs of socket and core in Linux's `/proc/cpuinfo`, of which threads of one core share one. */
function physicalCores(cpuInfo: string): number | undefined {
  const cores = new Set<string>();
  for (const processor of cpuInfo.split(/\n\s*\n/)) {
    const socket = /^physical id\s*:\s*(\d+)$/m.exec(processor)?.[1];
    const core = /^core id\s*:\s*(\d+)$/m.exec(processor)?.[1];
    if (socket !== undefined && core !== undefined) cores.add(`${socket}.${core}`);
  }
  return cores.size === 0 ? undefined : Math.min(cores.size, os.availableParallelism());
}

/** PCI devices of class 03 (display controllers); on macOS there is always one. */
async function gpus(root: string): Promise<GpuVendor[]> {
  if (root === '/' && process.platform === 'darwin') return ['apple'];
  const devices = path.join(root, 'sys/bus/pci/devices');
  const found: GpuVendor[] = [];
  for (const name of (await readdir(devices).catch((): string[] => [])).sort()) {
    const read = (entry: string) => readFile(path.join(devices, name, entry), 'utf8').catch(() => '');
    if (!(await read('class')).startsWith('0x03')) continue;
    found.push(VENDORS[(await read('vendor')).trim()] ?? 'other');
  }
  return found;
}

/** `cpu.max` of a control group: microseconds of time in a period of so many. */
function quota(text: string | undefined): number | undefined {
  const [time, period] = (text ?? '').trim().split(/\s+/).map(Number);
  return time === undefined || period === undefined || !(time > 0 && period > 0) ? undefined : time / period;
}

import { UsageError } from '../errors.js';
import type { DeviceProfile, LinkProfile, MachineProfile } from './profile.js';

const GB = 1e9;
const TERA = 1e12;
const MICRO = 1e-6;

/**
 * What no datasheet says, the same for all GPUs: the share of the bandwidth that streaming kernels reach (gpt-fast's
 * README: about 1,700 of an A100's 2,039 GB/s), the share of the peak rate that large products reach, and the least
 * time of a kernel and of its start (4 to 6 µs are commonly measured for a launch, 2 to 3 for an empty kernel).
 */
const GPU = {
  kind: 'gpu',
  computeEfficiency: 0.8,
  memoryEfficiency: [{ bytes: 1, share: 0.83 }],
  launch: 'ahead',
  launchSeconds: 5 * MICRO,
  kernelSeconds: 2 * MICRO,
  runSeconds: 0,
} as const satisfies Partial<DeviceProfile>;

const NCCL_SOURCE =
  'Exchanges: constants of NCCL 2 for its own predictions (NVIDIA/nccl, src/graph/tuning.cc), ring, LL and Simple';

/** Base, hop and share of bandwidth as NCCL's tuning has them: LL carries four bytes of flags with four of data, twice. */
const NVLINK_PROTOCOLS = [
  { name: 'LL', baseSeconds: 6.6 * MICRO, hopSeconds: 0.6 * MICRO, share: 0.25 },
  { name: 'Simple', baseSeconds: 8.4 * MICRO, hopSeconds: 3.4 * MICRO, share: 0.8 },
];
const PCIE_PROTOCOLS = [
  { name: 'LL', baseSeconds: 6.6 * MICRO, hopSeconds: 1 * MICRO, share: 0.25 },
  { name: 'Simple', baseSeconds: 8.4 * MICRO, hopSeconds: 5.7 * MICRO, share: 0.8 },
];

const ASSUMED =
  'Not from a datasheet: 83 % of the memory bandwidth (gpt-fast, README: ~1,700 of 2,039 GB/s), 80 % of the peak rate, 5 µs a launch, 2 µs a kernel at least';

interface Sheet {
  readonly title: string;
  readonly sources: readonly string[];
  readonly most: number;
  readonly device: Omit<DeviceProfile, 'id'>;
  readonly link: Omit<LinkProfile, 'between'>;
}

const A100 = {
  ...GPU,
  name: 'A100 SXM4 80 GB',
  memoryBytes: 80 * GB,
  memoryBytesPerSecond: 2039 * GB,
  peakFlops: {
    float32: 19.5 * TERA,
    float16: 312 * TERA,
    bfloat16: 312 * TERA,
    int8: 624 * TERA,
    int4: 1248 * TERA,
  },
} as const;

const SHEETS: Readonly<Record<string, Sheet>> = {
  'a100-nvlink': {
    title: 'A100 SXM4 80 GB, NVLink 3 through NVSwitch',
    sources: [
      'NVIDIA A100 datasheet (nvidia-a100-datasheet-us-nvidia-1758950-r4): 2,039 GB/s, 312 TFLOPS float16, NVLink 600 GB/s both ways',
      NCCL_SOURCE,
      ASSUMED,
    ],
    most: 16,
    device: A100,
    link: { bytesPerSecond: 300 * GB, protocols: NVLINK_PROTOCOLS },
  },
  'h100-nvlink': {
    title: 'H100 SXM5 80 GB, NVLink 4 through NVSwitch',
    sources: [
      'NVIDIA H100 datasheet: 3.35 TB/s, 989 TFLOPS float16 without sparsity, NVLink 900 GB/s both ways',
      NCCL_SOURCE,
      ASSUMED,
    ],
    most: 8,
    device: {
      ...GPU,
      name: 'H100 SXM5 80 GB',
      memoryBytes: 80 * GB,
      memoryBytesPerSecond: 3350 * GB,
      peakFlops: { float32: 67 * TERA, float16: 989 * TERA, bfloat16: 989 * TERA, int8: 1979 * TERA },
    },
    link: { bytesPerSecond: 450 * GB, protocols: NVLINK_PROTOCOLS },
  },
  'a100-pcie': {
    title: 'A100 PCIe 80 GB, PCIe 4.0 x16',
    sources: [
      'NVIDIA A100 datasheet: 1,935 GB/s, 312 TFLOPS float16, PCIe 4.0 64 GB/s both ways',
      NCCL_SOURCE,
      ASSUMED,
    ],
    most: 8,
    device: { ...A100, name: 'A100 PCIe 80 GB', memoryBytesPerSecond: 1935 * GB },
    link: { bytesPerSecond: 32 * GB, protocols: PCIE_PROTOCOLS, bus: 'root complex' },
  },
  'rtx4090-pcie': {
    title: 'GeForce RTX 4090, PCIe 4.0 x16, copies through the host (no peer to peer)',
    sources: [
      'NVIDIA Ada architecture whitepaper: 1,008 GB/s, 82.6 TFLOPS float32, 165.2 float16 with float32 sums; PCIe 4.0 64 GB/s both ways, half of it where each byte crosses twice',
      NCCL_SOURCE,
      ASSUMED,
    ],
    most: 8,
    device: {
      ...GPU,
      name: 'GeForce RTX 4090',
      memoryBytes: 24 * GB,
      memoryBytesPerSecond: 1008 * GB,
      peakFlops: {
        float32: 82.6 * TERA,
        float16: 165.2 * TERA,
        bfloat16: 165.2 * TERA,
        int8: 660.6 * TERA,
        int4: 1321.2 * TERA,
      },
    },
    link: { bytesPerSecond: 16 * GB, protocols: PCIE_PROTOCOLS, bus: 'root complex' },
  },
  'epyc-9654': {
    title: 'sockets of EPYC 9654, xGMI 3 between them',
    sources: [
      'AMD EPYC 9004 data sheet: 96 cores at 2.4 GHz, 12 channels DDR5-4800 (460.8 GB/s); 32 float32 operations a cycle and core (two 256-bit multiply-adds); xGMI 32 Gbit/s × 16 lanes × 3 links',
      'Not from a datasheet: 80 % of both, 5 µs an operator among 96 threads, 30 µs a run, exchanges of 1 µs and 0.5 µs a hop through shared memory',
    ],
    most: 2,
    device: {
      kind: 'cpu',
      name: 'EPYC 9654',
      memoryBytes: 384 * GB,
      memoryBytesPerSecond: 460.8 * GB,
      peakFlops: { float32: 96 * 2.4 * GB * 32, int8: 96 * 2.4 * GB * 128 },
      computeEfficiency: 0.8,
      memoryEfficiency: [{ bytes: 1, share: 0.8 }],
      launch: 'serial',
      launchSeconds: 5 * MICRO,
      kernelSeconds: 0,
      runSeconds: 30 * MICRO,
    },
    link: {
      bytesPerSecond: 192 * GB,
      protocols: [{ name: 'shared memory', baseSeconds: MICRO, hopSeconds: 0.5 * MICRO, share: 0.8 }],
    },
  },
};

/** Names that `datasheetProfile` knows. */
export function datasheetNames(): string[] {
  return Object.keys(SHEETS);
}

/**
 * A machine of so many equal devices, `0`, `1`, …, from datasheets. `sources` says which, and what they do not say.
 *
 * @throws UsageError `DATASHEET_UNKNOWN`, `DATASHEET_COUNT`
 */
export function datasheetProfile(name: string, count: number): MachineProfile {
  const sheet = Object.hasOwn(SHEETS, name) ? SHEETS[name] : undefined;
  if (sheet === undefined) {
    throw new UsageError('DATASHEET_UNKNOWN', `There is no datasheet of the name ${JSON.stringify(name)}.`, {
      expected: `one of ${datasheetNames().join(', ')}`,
      found: JSON.stringify(name),
      hint: 'or name a profile file',
    });
  }
  if (!Number.isSafeInteger(count) || count < 1 || count > sheet.most) {
    throw new UsageError('DATASHEET_COUNT', `There is no machine of so many: ${sheet.title}.`, {
      expected: `1 to ${sheet.most} devices`,
      found: String(count),
    });
  }
  return {
    version: 1,
    name: `${count} × ${sheet.title}`,
    sources: [...sheet.sources],
    devices: Array.from({ length: count }, (_, i) => ({ ...structuredCopy(sheet.device), id: String(i) })),
    links: [{ ...structuredCopy(sheet.link), between: 'all' }],
  };
}

/** Of plain data, so that what a caller changes stays the caller's. */
function structuredCopy<T>(value: T): T {
  return JSON.parse(JSON.stringify(value)) as T;
}

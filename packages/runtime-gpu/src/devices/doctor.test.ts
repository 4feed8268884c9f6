import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { testdata } from '../test/fixtures.js';
import { adviceFor, examine } from './doctor.js';
import { explain } from './explain.js';
import { type Hardware, readHardware } from './hardware.js';
import type { Device } from './list.js';
import { countNodes, providerUsage } from './usage.js';

const BARE: Hardware = {
  platform: 'linux',
  arch: 'x64',
  cpu: 'a processor',
  cores: 8,
  memoryBytes: 2 ** 34,
  numaNodes: 1,
  instructionSets: ['avx2', 'avx512f', 'avx512_vnni'],
  gpus: [],
  vulkanDrivers: [],
};
const failing = (provider: string, reason: string): Device => ({
  provider,
  bundled: true,
  works: false,
  reason,
});
const NO_LIBRARY = 'OrtSessionOptionsAppendExecutionProvider_Cuda: Failed to load shared library';
const NO_ADAPTER = 'Failed to get a WebGPU adapter: No supported adapters';

describe('explain', () => {
  it('tells a missing GPU from a missing driver from missing libraries', () => {
    const cuda = failing('cuda', NO_LIBRARY);
    expect(explain(cuda, BARE)).toEqual({ says: 'there is no NVIDIA GPU in this machine' });
    const withGpu: Hardware = { ...BARE, gpus: ['intel', 'nvidia'] };
    expect(explain(cuda, withGpu).says).toContain('driver is not loaded');
    expect(explain(cuda, withGpu).mend).toContain('nvidia-driver');
    const withDriver = { ...withGpu, nvidiaDriver: '550.54' };
    expect(explain(cuda, withDriver)).toMatchObject({
      says: expect.stringContaining('550.54'),
      mend: expect.stringContaining('CQIL_ORT_LIBRARY'),
    });
    expect(explain(failing('cuda', 'CUDA failure 999'), withDriver).says).toContain('CUDA failure 999');
  });

  it('tells a missing Vulkan driver from one that offers nothing', () => {
    const webgpu = failing('webgpu', NO_ADAPTER);
    expect(explain(webgpu, BARE)).toMatchObject({
      says: expect.stringContaining('no Vulkan driver'),
      mend: expect.stringContaining('mesa-vulkan-drivers'),
    });
    const software = explain(webgpu, { ...BARE, vulkanDrivers: ['lvp'] });
    expect(software).toEqual({ says: expect.stringContaining('no GPU') });
    const withGpu = { ...BARE, vulkanDrivers: ['radeon'], gpus: ['amd'] } as const;
    expect(explain(webgpu, withGpu).says).toContain('none offers an adapter');
    expect(explain(webgpu, { ...BARE, platform: 'win32' }).mend).toContain('driver');
  });

  it('says so when a driver hangs or ends the process', () => {
    expect(explain(failing('webgpu', 'it did not answer within 30 s'), BARE).says).toContain('hangs');
    const crashed = failing('cuda', 'the process that tried it crashed (SIGSEGV)');
    expect(explain(crashed, BARE).mend).toContain('driver');
  });
});

describe('adviceFor', () => {
  it('has none for a plain machine', () => {
    expect(adviceFor(BARE, { binding: 'native' })).toEqual([]);
  });

  it('names limits, NUMA nodes, missing instructions and the slow binding', () => {
    const slow = { ...BARE, cpuLimit: 2.5, numaNodes: 2, instructionSets: ['avx2'] };
    const advice = adviceFor(slow, { binding: 'node' }).join('\n');
    for (const word of ['threads: 2', 'numactl', 'VNNI', 'native binding']) expect(advice).toContain(word);
  });
});

describe('readHardware', () => {
  let root: string;
  beforeAll(async () => {
    root = await mkdtemp(path.join(tmpdir(), 'cqil-hardware-'));
    const put = async (name: string, text: string) => {
      const file = path.join(root, name);
      await mkdir(path.dirname(file), { recursive: true });
      await writeFile(file, text);
    };
    const processor = (id: number, core: number) =>
      `processor\t: ${id}\nphysical id\t: 0\ncore id\t\t: ${core}\nflags\t\t: fpu avx2 avx512f avx512_vnni\n`;
    // Two threads of one core.
    await put('proc/cpuinfo', [processor(0, 3), processor(1, 3)].join('\n'));
    await put('sys/fs/cgroup/cpu.max', '150000 100000\n');
    await put('sys/fs/cgroup/memory.max', '1073741824\n');
    await put('sys/devices/system/node/node0/cpulist', '0-3');
    await put('sys/devices/system/node/node1/cpulist', '4-7');
    await put('sys/bus/pci/devices/0000:01:00.0/class', '0x030200\n');
    await put('sys/bus/pci/devices/0000:01:00.0/vendor', '0x10de\n');
    await put('sys/bus/pci/devices/0000:02:00.0/class', '0x020000\n');
    await put('sys/bus/pci/devices/0000:02:00.0/vendor', '0x8086\n');
    await put(
      'proc/driver/nvidia/version',
      'NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue\n',
    );
    await put('usr/share/vulkan/icd.d/lvp_icd.x86_64.json', '{}');
  });
  afterAll(() => rm(root, { recursive: true }));

  it('reads limits, nodes, instructions, GPUs and drivers', async () => {
    expect(await readHardware(root)).toMatchObject({
      cpuLimit: 1.5,
      physicalCores: 1,
      memoryLimitBytes: 2 ** 30,
      numaNodes: 2,
      instructionSets: ['avx2', 'avx512f', 'avx512_vnni'],
      gpus: ['nvidia'],
      nvidiaDriver: '550.54.15',
      vulkanDrivers: ['lvp'],
    });
  });

  it('finds nothing where nothing is', async () => {
    const found = await readHardware(path.join(root, 'none'));
    expect(found).toMatchObject({ numaNodes: 1, gpus: [], vulkanDrivers: [], instructionSets: [] });
    expect(found).not.toHaveProperty('cpuLimit');
    expect(found).not.toHaveProperty('physicalCores');
    expect(found).not.toHaveProperty('nvidiaDriver');
  });
});

describe('examine', () => {
  it('tells the truth about this machine', async () => {
    const { hardware, library, devices } = await examine();
    expect(hardware.cores).toBeGreaterThan(0);
    expect(library).toMatchObject({ binding: 'native', version: expect.stringMatching(/^1\.\d+/) });
    expect(devices.find(({ provider }) => provider === 'cpu')).toMatchObject({ works: true });
    for (const { says } of devices) expect(says.length).toBeGreaterThan(0);
  });
});

describe('providerUsage', () => {
  it('counts the nodes that each provider computed', async () => {
    const usage = await providerUsage(testdata('genai-fp32/llama/model.onnx'), 'cpu');
    expect(Object.keys(usage.nodes)).toEqual(['cpu']);
    expect(usage.nodes.cpu).toBeGreaterThan(20);
    expect(usage).toMatchObject({ copies: 0, leftToCpu: {} });
    expect(usage.rssBytes).toBeGreaterThan(1e7);
    await expect(providerUsage(testdata('genai-fp32/llama/model.onnx'), 'abacus')).rejects.toMatchObject({
      code: 'PROVIDER_UNAVAILABLE',
    });
  });

  it('knows copies, and what was left to the CPU', () => {
    const node = (op_name: string, provider: string) => ({
      cat: 'Node',
      name: `${op_name}_kernel_time`,
      dur: 500,
      args: { op_name, provider: `${provider}ExecutionProvider` },
    });
    const events = [
      node('MatMul', 'WebGpu'),
      node('MatMul', 'WebGpu'),
      node('MemcpyToHost', 'WebGpu'),
      node('GroupQueryAttention', 'CPU'),
      { cat: 'Session', name: 'model_run' },
    ];
    expect(countNodes(events)).toEqual({
      nodes: { webgpu: 3, cpu: 1 },
      kernelMs: { webgpu: 1.5, cpu: 0.5 },
      copies: 1,
      leftToCpu: { GroupQueryAttention: 1 },
    });
  });
});

import fc from 'fast-check';
import type { Bypass, GroupForm, Plan, PlanGroup } from '../../plan/types.js';
import type { Pass } from '../kernels.js';
import type { Placement } from '../placement.js';
import type { DeviceProfile, MachineProfile } from '../profile.js';
import { EAGER_KERNELS, FUSED_KERNELS, type ModelShape } from '../shape.js';

/** A small model. */
export const TINY: ModelShape = {
  name: 'tiny',
  layers: 6,
  hidden: 64,
  heads: 4,
  kvHeads: 2,
  headDim: 16,
  ffn: 128,
  gated: true,
  vocabulary: 100,
  tied: false,
  weightBits: 16,
  headBits: 16,
  computeType: 'float16',
  activationBytes: 2,
  kvBytes: 2,
  kernels: FUSED_KERNELS,
};

/** A plan of so many layers without groups. */
export function unplanned(layers: number): Plan {
  return { version: 1, layers, groups: [] };
}

/** Equal devices with round numbers: 1 GFLOP/s, 1 GB/s, links of 1 GB/s. */
export function roundMachine(count: number, changes: Partial<DeviceProfile> = {}): MachineProfile {
  return {
    version: 1,
    name: 'round',
    devices: Array.from({ length: count }, (_, i) => ({
      id: String(i),
      kind: 'cpu',
      memoryBytes: 1e12,
      peakFlops: { float16: 1e9, float32: 1e9 },
      computeEfficiency: 1,
      memoryBytesPerSecond: 1e9,
      memoryEfficiency: [{ bytes: 1, share: 1 }],
      launch: 'serial',
      launchSeconds: 0,
      kernelSeconds: 0,
      runSeconds: 0,
      ...changes,
    })),
    links: [
      {
        between: 'all',
        bytesPerSecond: 1e9,
        protocols: [{ baseSeconds: 0, hopSeconds: 0, share: 1 }],
      },
    ],
  };
}

const seconds = (most: number) => fc.oneof(fc.constant(0), fc.double({ min: 0, max: most, noNaN: true }));

const devices: fc.Arbitrary<Omit<DeviceProfile, 'id'>> = fc.record({
  kind: fc.constantFrom('cpu', 'gpu'),
  memoryBytes: fc.constant(1e12),
  peakFlops: fc.record({ float16: fc.double({ min: 1e7, max: 1e12, noNaN: true }) }),
  computeEfficiency: fc.double({ min: 0.1, max: 1, noNaN: true }),
  memoryBytesPerSecond: fc.double({ min: 1e7, max: 1e12, noNaN: true }),
  memoryEfficiency: fc.constantFrom(
    [{ bytes: 1, share: 1 }],
    [
      { bytes: 1000, share: 0.2 },
      { bytes: 100000, share: 0.9 },
    ],
  ),
  launch: fc.constantFrom('ahead', 'serial'),
  launchSeconds: seconds(1e-4),
  kernelSeconds: seconds(1e-5),
  runSeconds: seconds(1e-3),
});

/** Machines whose links carry exchanges side by side. */
export function machines(count: number, { alike = false } = {}): fc.Arbitrary<MachineProfile> {
  return fc
    .record({
      devices: fc.array(devices, { minLength: count, maxLength: count }),
      bytesPerSecond: fc.double({ min: 1e6, max: 1e12, noNaN: true }),
      baseSeconds: seconds(1e-4),
      hopSeconds: seconds(1e-5),
    })
    .map(({ devices: list, bytesPerSecond, baseSeconds, hopSeconds }) => ({
      version: 1,
      name: 'made up',
      devices: list.map((device, i) => ({ ...(alike ? list[0]! : device), id: String(i) })),
      links: [
        {
          between: 'all',
          bytesPerSecond,
          protocols: [{ baseSeconds, hopSeconds, share: 1 }],
        },
      ],
    }));
}

export const passes: fc.Arbitrary<Pass> = fc.record({
  tokens: fc.integer({ min: 1, max: 40 }),
  context: fc.integer({ min: 0, max: 500 }),
  logits: fc.constantFrom('last', 'all'),
});

export const shapes: fc.Arbitrary<ModelShape> = fc
  .record({
    layers: fc.integer({ min: 1, max: 8 }),
    heads: fc.integer({ min: 1, max: 6 }),
    kernels: fc.constantFrom(FUSED_KERNELS, EAGER_KERNELS),
    gated: fc.boolean(),
  })
  .map((parts) => ({ ...TINY, ...parts, kvHeads: parts.heads }));

/** Plans of so many layers, groups of two to four. */
export function plansOf(layers: number): fc.Arbitrary<Plan> {
  const part = fc.record({
    size: fc.integer({ min: 1, max: 4 }),
    bypass: fc.constantFrom<Bypass[]>(0, 1, 2, 'full'),
    form: fc.constantFrom<(GroupForm | undefined)[]>(undefined, 'branches', 'wide'),
  });
  return fc.array(part, { maxLength: layers }).map((parts) => {
    const groups: PlanGroup[] = [];
    let layer = 0;
    for (const { size, bypass, form } of parts) {
      const run = Array.from({ length: Math.min(size, layers - layer) }, (_, i) => layer + i);
      if (run.length > 1) groups.push({ layers: run, bypass, ...(form === undefined ? {} : { form }) });
      layer += run.length;
    }
    return { version: 1, layers, groups };
  });
}

/** Placements on machines of four devices. */
export const placements: fc.Arbitrary<Placement> = fc.record({
  teams: fc.constantFrom(
    [['0']],
    [['0'], ['1']],
    [['0', '1']],
    [['0', '1', '2', '3']],
    [['0'], ['1'], ['2'], ['3']],
    [
      ['0', '1'],
      ['2', '3'],
    ],
    [['2'], ['0', '3']],
  ),
  ungrouped: fc.constantFrom('first' as const, 'split' as const),
});

import { describe, expect, it } from 'vitest';
import { uniformPlan } from '../grouping/uniform.js';
import { calibrateLaunch } from '../latency/calibrate.js';
import { datasheetProfile } from '../latency/datasheets.js';
import type { Pass } from '../latency/kernels.js';
import {
  branchParallel,
  branchTeams,
  onOneDevice,
  type Placement,
  tensorParallel,
} from '../latency/placement.js';
import { predictPass } from '../latency/predict.js';
import type { MachineProfile } from '../latency/profile.js';
import { buildProgram } from '../latency/program.js';
import { EAGER_KERNELS, type ModelShape, modelShape } from '../latency/shape.js';
import { unplanned } from '../latency/testing/instances.js';
import type { Plan } from '../plan/types.js';
import { simulate } from './simulate.js';

/**
 * Published latencies against the simulator's. Nothing here is fitted to what CQIL gave anyone: rates are from
 * datasheets, exchanges are NCCL's own constants, and the launch cost is what explains the unplanned LLaMA-7B in eager
 * PyTorch on an A100 (25.5 tokens/s, pytorch.org/blog/accelerating-generative-ai-2, batch 1).
 */
const seven = { ...modelShape('llama-7b'), kernels: EAGER_KERNELS };
const datasheet = datasheetProfile('a100-nvlink', 8);
const eager = calibrateLaunch(datasheet, seven, { tokens: 1, context: 5 }, 1 / 25.5);
const ids = (n: number) => datasheet.devices.slice(0, n).map(({ id }) => id);

/** The authors' benchmark.py: a sentence of about ten tokens, no cache, logits of all of them. */
const BENCHMARK: Pass = { tokens: 10, context: 0, logits: 'all' };

function seconds(
  plan: Plan,
  shape: ModelShape,
  placement: Placement,
  profile: MachineProfile,
  pass: Pass,
): number {
  return simulate(buildProgram({ plan, shape, placement, profile, pass })).seconds;
}

/** The same in closed form, which is quicker. */
function predicted(
  plan: Plan,
  shape: ModelShape,
  placement: Placement,
  profile: MachineProfile,
  pass: Pass,
): number {
  return predictPass({ plan, shape, placement, profile }, pass).seconds;
}

/** Change of latency by CQIL on one device a branch, per cent. */
function change(
  name: string,
  geometry: { groupSize: number; start: number; end: number; bypass: number },
  profile = eager,
  time = seconds,
): number {
  const shape = { ...modelShape(name), kernels: EAGER_KERNELS };
  const plan = uniformPlan({ layers: shape.layers, ...geometry });
  const before = time(unplanned(shape.layers), shape, onOneDevice('0'), profile, BENCHMARK);
  const after = time(plan, shape, branchParallel(ids(geometry.groupSize)), profile, BENCHMARK);
  return 100 * (after / before - 1);
}

const P2 = { groupSize: 2, start: 12, end: 30, bypass: 0 };
const P4 = { groupSize: 4, start: 14, end: 30, bypass: 1 };
// What the paper calls LLaMA-33B's plan could not be looked up; 48.3 % is 29 of 60 layers' time, and the plans of fours
// that save as much or next to it group 39 or 40 layers.
const P4_33B = { groupSize: 4, start: 17, end: 57, bypass: 1 };
const P4_33B_SHORTER = { groupSize: 4, start: 17, end: 56, bypass: 1 };

describe("the authors' figures, within 10 points", () => {
  it.each([
    ['llama-7b', P2, -26.2],
    ['llama-7b', P4, -37.4],
    ['llama-33b', P4_33B, -48.3],
    ['llama-33b', P4_33B_SHORTER, -48.3],
  ] as const)('%s %j: by %d', (name, geometry, published) => {
    expect(Math.abs(change(name, geometry) - published)).toBeLessThan(10);
    // The datasheet's launches alone, as if nothing but CUDA were in the way.
    expect(Math.abs(change(name, geometry, datasheet) - published)).toBeLessThan(10);
  });

  it('whatever is guessed for what datasheets do not say', () => {
    for (const launchSeconds of [0, 3e-6, 10e-6, 30e-6]) {
      for (const kernelSeconds of [1e-6, 4e-6]) {
        for (const share of [0.6, 1]) {
          for (const base of [1, 3]) {
            const profile: MachineProfile = {
              ...datasheet,
              devices: datasheet.devices.map((device) => ({
                ...device,
                launchSeconds,
                kernelSeconds,
                memoryEfficiency: [{ bytes: 1, share }],
              })),
              links: datasheet.links.map((link) => ({
                ...link,
                protocols: link.protocols.map((one) => ({ ...one, baseSeconds: base * one.baseSeconds })),
              })),
            };
            expect(Math.abs(change('llama-7b', P2, profile, predicted) + 26.2)).toBeLessThan(10);
            expect(Math.abs(change('llama-7b', P4, profile, predicted) + 37.4)).toBeLessThan(10);
            expect(Math.abs(change('llama-33b', P4_33B, profile, predicted) + 48.3)).toBeLessThan(10);
          }
        }
      }
    }
  });
});

describe('tensor parallelism as measured by others', () => {
  // gpt-fast's README: Llama-2-7B, compiled (CUDA graphs), A100 80 GB at 330 W, tokens/s by number of GPUs.
  const measured = new Map([
    [1, 104.9],
    [2, 168.84],
    [4, 254.02],
    [8, 328.43],
  ]);
  const profile = { ...datasheet, devices: datasheet.devices.map((one) => ({ ...one, launchSeconds: 0 })) };
  const pass = { tokens: 1, context: 100 };
  const rate = (n: number) =>
    1 / seconds(unplanned(32), modelShape('llama-7b'), tensorParallel(ids(n)), profile, pass);

  it('is met within a quarter, and its speed-up within a tenth', () => {
    for (const [n, tokens] of measured) {
      expect(Math.abs(rate(n) / tokens - 1)).toBeLessThan(0.25);
      const speedup = rate(n) / rate(1);
      expect(Math.abs(speedup / (tokens / measured.get(1)!) - 1)).toBeLessThan(0.1);
    }
  });
});

describe('CQIL beside tensor parallelism', () => {
  const pass = { tokens: 1, context: 100 };
  const plan = uniformPlan({ layers: 32, groupSize: 2, start: 12, end: 30 });
  const times = (profile: MachineProfile, shape: ModelShape) => ({
    one: seconds(unplanned(32), shape, onOneDevice('0'), profile, pass),
    cqil: seconds(plan, shape, branchParallel(ids(2)), profile, pass),
    tensor: seconds(unplanned(32), shape, tensorParallel(ids(2)), profile, pass),
    both: seconds(plan, shape, branchTeams(ids(2), 2), profile, pass),
  });

  it('wins where launches decide: split layers have as many kernels as whole ones', () => {
    const { one, cqil, tensor, both } = times(eager, seven);
    expect(cqil).toBeLessThan(0.75 * one);
    expect(tensor).toBeGreaterThan(one);
    expect(both).toBeLessThan(tensor);
  });

  it('loses where memory decides and links are fast, and adds to it', () => {
    const fast = { ...datasheet, devices: datasheet.devices.map((one) => ({ ...one, launchSeconds: 0 })) };
    const { one, cqil, tensor, both } = times(fast, modelShape('llama-7b'));
    expect(tensor).toBeLessThan(cqil);
    expect(cqil).toBeLessThan(one);
    expect(both).toBeLessThan(tensor);
  });
});

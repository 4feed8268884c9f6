import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { branchParallel, branchTeams, onOneDevice } from '../latency/placement.js';
import { programLatency } from '../latency/predict.js';
import { buildProgram, type Program } from '../latency/program.js';
import {
  machines,
  passes,
  placements,
  plansOf,
  roundMachine,
  shapes,
  TINY,
  unplanned,
} from '../latency/testing/instances.js';
import { type Simulation, type Span, simulate } from './simulate.js';

const programs: fc.Arbitrary<Program> = shapes
  .chain((shape) =>
    fc.record({
      shape: fc.constant(shape),
      plan: plansOf(shape.layers),
      pass: passes,
      placement: placements,
      profile: machines(4),
    }),
  )
  .map(buildProgram);

const pass = { tokens: 1, context: 0 };
const pair = { ...unplanned(6), groups: [{ layers: [2, 3], bypass: 0 as const }] };

/** Whether spans of a lane never overlap. */
function inOrder(spans: readonly Span[]): boolean {
  const sorted = spans.toSorted((a, b) => a.start - b.start || a.end - b.end);
  return sorted.every((span, i) => i === 0 || span.start >= sorted[i - 1]!.end - 1e-12);
}

const lane = (simulation: Simulation, device: number, kinds: readonly string[]) =>
  simulation.spans.filter((span) => span.device === device && kinds.includes(span.kind));

it('is the closed form where nothing is contended', () => {
  fc.assert(
    fc.property(programs, (program) => {
      const { seconds, devices } = programLatency(program);
      const simulation = simulate(program);
      expect(Math.abs(simulation.seconds - seconds)).toBeLessThanOrEqual(1e-9 * seconds);
      for (const [i, { busySeconds }] of simulation.devices.entries()) {
        const serial =
          program.profile.devices.find(({ id }) => id === program.devices[i])!.launch === 'serial';
        // A serial device's starts are part of its kernels' spans here, and not of the closed form's busy time.
        if (!serial) expect(busySeconds).toBeCloseTo(devices[i]!.busySeconds, 9);
      }
    }),
    { numRuns: 60 },
  );
});

it('runs what the program says: each kernel once, in order, none before it was started', () => {
  fc.assert(
    fc.property(programs, fc.integer({ min: 1, max: 3 }), (program, streams) => {
      const simulation = simulate(program, { streams });
      const kernels = program.ops.flatMap((op) => (op.kind === 'kernels' ? op.kernels : []));
      expect(simulation.spans.filter(({ kind }) => kind === 'kernel')).toHaveLength(kernels.length);
      for (const [device] of program.devices.entries()) {
        for (let stream = 0; stream < streams; stream++) {
          const own = lane(simulation, device, ['kernel', 'runtime', 'exchange']).filter(
            (span) => span.stream === stream || span.kind === 'exchange',
          );
          expect(inOrder(own)).toBe(true);
        }
        expect(inOrder(lane(simulation, device, ['launch']))).toBe(true);
      }
      const starts = simulation.spans.map(({ start }) => start);
      expect(starts).toEqual(starts.toSorted((a, b) => a - b));
      for (const { start, end } of simulation.spans) expect(end).toBeGreaterThanOrEqual(start);
    }),
    { numRuns: 40 },
  );
});

it('gives the same for the same', () => {
  fc.assert(
    fc.property(programs, (program) => {
      expect(simulate(program, { streams: 2 })).toEqual(simulate(program, { streams: 2 }));
    }),
    { numRuns: 10 },
  );
});

describe('streams on one device', () => {
  const program = (kernelSeconds: number, launch: 'ahead' | 'serial' = 'ahead') =>
    buildProgram({
      plan: pair,
      shape: TINY,
      placement: onOneDevice('0'),
      profile: roundMachine(1, { launch, kernelSeconds }),
      pass,
    });
  const saved = (one: Program) => simulate(one).seconds - simulate(one, { streams: 2 }).seconds;

  it('gain nothing where kernels fill the device', () => {
    expect(saved(program(0))).toBeCloseTo(0, 12);
    expect(saved(program(1, 'serial'))).toBeCloseTo(0, 12);
  });

  it('hide the fixed cost of a layer where they do not', () => {
    // A branch is ten kernels of a second and a little work.
    expect(saved(program(1))).toBeCloseTo(10, 3);
  });

  it('never lose', () => {
    fc.assert(
      fc.property(programs, (one) => {
        const serial = simulate(one).seconds;
        expect(simulate(one, { streams: 4 }).seconds).toBeLessThanOrEqual(serial * (1 + 1e-9));
      }),
      { numRuns: 40 },
    );
  });
});

describe('a shared bus', () => {
  const on = (bus: string | undefined) => {
    const profile = roundMachine(4);
    const link = { ...profile.links[0]!, bytesPerSecond: 128 };
    return buildProgram({
      plan: pair,
      shape: TINY,
      placement: branchTeams(['0', '1', '2', '3'], 2, 'first'),
      profile: { ...profile, links: [bus === undefined ? link : { ...link, bus }] },
      pass,
    });
  };

  it('carries one exchange at a time', () => {
    const [free, shared] = [simulate(on(undefined)), simulate(on('host'))];
    // Both teams sum their attention outputs, 128 bytes at 128 bytes/s: one second, or one after the other.
    expect(shared.seconds - free.seconds).toBeCloseTo(1, 6);
    const exchanges = shared.spans.filter(({ kind }) => kind === 'exchange');
    const once = [...new Map(exchanges.map((span) => [`${span.start} ${span.name}`, span])).values()];
    expect(inOrder(once)).toBe(true);
  });

  it('is what the closed form leaves out', () => {
    expect(programLatency(on('host')).seconds).toBeCloseTo(simulate(on(undefined)).seconds, 9);
  });
});

it('overlaps branches on two devices', () => {
  const program = buildProgram({
    plan: pair,
    shape: TINY,
    placement: branchParallel(['0', '1']),
    profile: roundMachine(2),
    pass,
  });
  const { spans } = simulate(program);
  const of = (name: string) => spans.filter((span) => span.name.startsWith(name));
  expect(of('layer 2')[0]!.start).toBe(of('layer 3')[0]!.start);
  expect(new Set(of('layer 3').map(({ device }) => device))).toEqual(new Set([1]));
});

it('refuses what is no number of streams', () => {
  const program = buildProgram({
    plan: pair,
    shape: TINY,
    placement: onOneDevice('0'),
    profile: roundMachine(1),
    pass,
  });
  for (const streams of [0, 1.5, Number.NaN]) expect(() => simulate(program, { streams })).toThrow(/streams/);
});

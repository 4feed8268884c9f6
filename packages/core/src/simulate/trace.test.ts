import { expect, it } from 'vitest';
import { branchParallel } from '../latency/placement.js';
import { buildProgram } from '../latency/program.js';
import { roundMachine, TINY, unplanned } from '../latency/testing/instances.js';
import { simulate } from './simulate.js';
import { chromeTrace } from './trace.js';

const profile = roundMachine(2, { launch: 'ahead', launchSeconds: 1e-6, kernelSeconds: 2e-6 });
profile.devices[0]!.name = 'first';
const program = buildProgram({
  plan: { ...unplanned(6), groups: [{ layers: [2, 3], bypass: 0 }] },
  shape: TINY,
  placement: branchParallel(['0', '1']),
  profile,
  pass: { tokens: 1, context: 0 },
});
const simulation = simulate(program);
const trace = chromeTrace(program, simulation);

it('names devices and lanes', () => {
  const names = trace.traceEvents.flatMap(({ ph, pid, tid, args }) =>
    ph === 'M' ? [`${pid} ${tid} ${String(args?.name)}`] : [],
  );
  expect(names.toSorted()).toEqual([
    '0 0 0: first',
    '0 0 host',
    '0 1 exchanges',
    '0 2 stream 0',
    '1 0 1',
    '1 0 host',
    '1 1 exchanges',
    '1 2 stream 0',
  ]);
});

it('has every span, in microseconds', () => {
  const spans = trace.traceEvents.filter(({ ph }) => ph === 'X');
  expect(spans).toHaveLength(simulation.spans.length);
  const end = Math.max(...spans.map(({ ts, dur }) => ts! + dur!));
  expect(end).toBeCloseTo(simulation.seconds * 1e6, 6);
  expect(spans.filter(({ cat }) => cat === 'exchange').map(({ pid }) => pid)).toEqual([0, 1, 0, 1]);
});

it('is JSON', () => {
  expect(JSON.parse(JSON.stringify(trace))).toEqual(trace);
});

import { describe, expect, it } from 'vitest';
import { uniformPlan } from '../grouping/uniform.js';
import { datasheetProfile } from './datasheets.js';
import { predictPass } from './predict.js';
import { rankPlacements } from './rank.js';
import { modelShape } from './shape.js';
import { roundMachine, TINY, unplanned } from './testing/instances.js';

const pass = { tokens: 1, context: 0 };
const plan = { ...unplanned(6), groups: [{ layers: [1, 2], bypass: 0 as const }] };

it('tries every way to use one device or all, soonest first', () => {
  const profile = roundMachine(4);
  const ranked = rankPlacements({ plan, shape: TINY, profile }, pass);
  // 4 alone, tensor parallelism, two teams of two (two ways), four of one (four firsts, and split).
  expect(ranked).toHaveLength(4 + 1 + 2 + 5);
  expect(new Set(ranked.map(({ placement }) => JSON.stringify(placement))).size).toBe(ranked.length);
  const seconds = ranked.map(({ latency }) => latency.seconds);
  expect(seconds).toEqual(seconds.toSorted((a, b) => a - b));
  for (const { placement, latency } of ranked) {
    expect(latency).toEqual(predictPass({ plan, shape: TINY, profile, placement }, pass));
  }
});

describe('of unequal devices', () => {
  it('the faster is first', () => {
    const profile = roundMachine(2);
    profile.devices[1]!.memoryBytesPerSecond *= 10;
    profile.devices[1]!.peakFlops.float16! *= 10;
    const ranked = rankPlacements({ plan, shape: TINY, profile }, pass);
    expect(ranked[0]!.placement.teams[0]![0]).toBe('1');
  });

  it('those without room come last', () => {
    const profile = roundMachine(2);
    profile.devices[0]!.memoryBytes = 1;
    profile.devices[0]!.memoryBytesPerSecond *= 10;
    const ranked = rankPlacements({ plan: unplanned(6), shape: TINY, profile }, pass);
    expect(ranked[0]!.placement.teams).toEqual([['1']]);
  });
});

it('takes the devices that it is given', () => {
  const profile = datasheetProfile('a100-nvlink', 4);
  const shape = modelShape('llama-7b');
  const paper = uniformPlan({ layers: 32, groupSize: 2, start: 12, end: 30 });
  const ranked = rankPlacements({ plan: paper, shape, profile, devices: ['2'] }, pass);
  expect(ranked.map(({ placement }) => placement.teams)).toEqual([[['2']]]);
});

import { describe, expect, it } from 'vitest';
import type { Board } from './board.js';
import type { PartitionManifest } from './manifest.js';
import { Timeline } from './timeline.js';

const part = (name: string, device: string, sources: readonly string[]) => ({
  name,
  file: `${name}.onnx`,
  devices: [device],
  holds: name,
  inputs: sources.map((from) => ({ name: from, from })),
  outputs: [name],
});

const manifest: PartitionManifest = {
  version: 1,
  model: 'm',
  weights: { folder: '.', files: [] },
  devices: ['cpu:0', 'cpu:1'],
  inputs: ['ids'],
  outputs: ['join'],
  parts: [
    part('trunk', 'cpu:0', []),
    part('a', 'cpu:0', ['trunk']),
    part('b', 'cpu:1', ['trunk']),
    part('join', 'cpu:0', ['a', 'b']),
  ],
  shapes: {},
  groups: [],
};

/** Milliseconds that each part waited from, ran from, and ended at. */
const times = Float64Array.of(1000, 1000, 1003, 1003, 1003, 1005, 999, 1003.5, 1006, 1005, 1006.25, 1007);

function timeline(): Timeline {
  const made = new Timeline(manifest);
  made.add({ times } as Board);
  return made;
}

describe('Timeline', () => {
  it('gives a row to each device, in microseconds from the first wait', () => {
    const { traceEvents } = timeline().trace();
    const spans = traceEvents
      .filter(({ ph }) => ph === 'X')
      .map(({ name, tid, ts, dur }) => [name, tid, ts, dur]);
    expect(spans).toEqual([
      ['trunk', 0, 1000, 3000],
      ['a', 0, 4000, 2000],
      ['wait', 1, 0, 4500],
      ['b', 1, 4500, 2500],
      ['wait', 0, 6000, 1250],
      ['join', 0, 7250, 750],
    ]);
    expect(traceEvents.filter(({ ph }) => ph === 'M').map(({ args }) => args?.name)).toEqual(
      manifest.devices,
    );
  });

  it('counts as exchange what passes when everything is there', () => {
    expect(timeline().exchanges()).toEqual([
      { part: 'b', overheadUs: 500, waitedUs: 4500 },
      { part: 'join', overheadUs: 250, waitedUs: 1250 },
    ]);
  });

  it('forgets when it is told to, and the oldest steps when there are many', () => {
    const made = timeline();
    made.clear();
    expect(made.exchanges()).toEqual([]);
    for (let i = 0; i < 600; i++) made.add({ times: times.map((time) => time + 10 * i) } as Board);
    expect(made.exchanges()).toHaveLength(512 * 2);
  });
});

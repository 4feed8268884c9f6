import { describe, expect, it } from 'vitest';
import { uniformPlan } from '../grouping/uniform.js';
import type { Plan, PlanGroup } from '../plan/types.js';
import { branchParallel, branchTeams, onOneDevice, type Placement, tensorParallel } from './placement.js';
import { buildProgram, type Program } from './program.js';
import { roundMachine, TINY, unplanned } from './testing/instances.js';

const pass = { tokens: 2, context: 0 };
const streamBytes = 2 * 64 * 2;
const ids = (n: number) => Array.from({ length: n }, (_, i) => String(i));

function program(plan: Plan, placement: Placement, machine = roundMachine(4)): Program {
  return buildProgram({ plan, shape: TINY, placement, profile: machine, pass });
}

const pair = (bypass: PlanGroup['bypass'], rest: Partial<PlanGroup> = {}): Plan => ({
  ...unplanned(6),
  groups: [{ layers: [2, 3], bypass, ...rest }],
});

/** `name: kind` of the exchanges, with their devices. */
const exchanges = ({ ops }: Program) =>
  ops.flatMap((op) => (op.kind === 'exchange' ? [`${op.name} ${op.devices.join('')}`] : []));

/** Weights that each device computes with. */
const weights = ({ ops, devices }: Program) =>
  devices.map((_, device) =>
    ops
      .flatMap((op) => (op.kind === 'kernels' && op.device === device ? op.kernels : []))
      .reduce((sum, { product }) => sum + (product === undefined ? 0 : product.k * product.n), 0),
  );

const LAYER = 64 * 16 * (2 * 4 + 2 * 2) + 3 * 64 * 128;
const HEAD = 64 * 100;

describe('exchanges', () => {
  it('are none on one device', () => {
    expect(exchanges(program(pair(1), onOneDevice('0')))).toEqual([]);
  });

  it('are two a layer with tensor parallelism, and one for the logits', () => {
    const found = exchanges(program(unplanned(6), tensorParallel(ids(2))));
    expect(found).toHaveLength(2 * 6 + 1);
    expect(found.slice(0, 2)).toEqual(['layer 0 attention: all-reduce 01', 'layer 0 ffn: all-reduce 01']);
    expect(found.at(-1)).toBe('logits: all-gather 01');
  });

  it('are one a group with branches on devices, and a broadcast where a run of groups begins', () => {
    expect(exchanges(program(pair(0), branchParallel(ids(2))))).toEqual([
      'stream: broadcast 01',
      'layers 2–3 sum: all-reduce 01',
    ]);
    const run = uniformPlan({ layers: 6, groupSize: 2, start: 1, end: 5 });
    expect(exchanges(program(run, branchParallel(ids(2))))).toEqual([
      'stream: broadcast 01',
      'layers 1–2 sum: all-reduce 01',
      'layers 3–4 sum: all-reduce 01',
    ]);
  });

  it('are one more with a bypass: sent on, or summed where it is full', () => {
    const chain = program(
      { ...unplanned(6), groups: [{ layers: [1, 2, 3, 4], bypass: 2 }] },
      branchParallel(ids(4)),
    );
    const sent = chain.ops.find((op) => op.kind === 'exchange' && op.exchange.kind === 'send');
    expect(sent).toMatchObject({
      exchange: {
        pairs: [
          ['0', '1'],
          ['0', '2'],
          ['1', '2'],
          ['1', '3'],
          ['2', '3'],
        ],
        // The first sends to two.
        bytes: 2 * streamBytes,
      },
    });
    expect(exchanges(program(pair('full'), branchParallel(ids(2))))[1]).toBe(
      'layers 2–3 bypass: all-reduce 01',
    );
    expect(exchanges(chain)).toHaveLength(3);
  });

  it('stay inside a team where it splits a branch', () => {
    expect(exchanges(program(pair(0), branchTeams(ids(4), 2, 'first')))).toEqual([
      ...[0, 1].flatMap((i) => [`layer ${i} attention: all-reduce 01`, `layer ${i} ffn: all-reduce 01`]),
      'stream: broadcast 023',
      'layer 2 attention: all-reduce 01',
      'layer 3 attention: all-reduce 23',
      'layers 2–3 sum: all-reduce 0123',
      ...[4, 5].flatMap((i) => [`layer ${i} attention: all-reduce 01`, `layer ${i} ffn: all-reduce 01`]),
      'logits: all-gather 01',
    ]);
  });

  it('bring the sum home where no branch was', () => {
    const placement = { ...branchParallel(ids(2)), assignment: [[1, 1]] };
    expect(exchanges(program(pair(0), placement))).toEqual([
      'stream: broadcast 01',
      'layers 2–3 sum: all-reduce 01',
    ]);
  });

  it('need no broadcast where ungrouped layers are split among all', () => {
    const found = exchanges(program(pair(0), branchParallel(ids(2), 'split')));
    expect(found.filter((name) => name.startsWith('stream'))).toEqual([]);
    expect(found).toHaveLength(2 * 4 + 1 + 1);
  });

  it('are two a wide group, as of a layer that is split', () => {
    expect(exchanges(program(pair('full', { form: 'wide' }), branchParallel(ids(2))))).toEqual([
      'stream: broadcast 01',
      'layers 2–3 wide attention: all-reduce 01',
      'layers 2–3 wide ffn: all-reduce 01',
    ]);
  });
});

describe('work', () => {
  it('is all of the model on one device, in any form', () => {
    for (const plan of [unplanned(6), pair(0), pair(1), pair('full'), pair('full', { form: 'wide' })]) {
      expect(weights(program(plan, onOneDevice('0')))).toEqual([6 * LAYER + HEAD]);
    }
  });

  it('of a branch is on its device, all else on the first', () => {
    expect(weights(program(pair(0), branchParallel(ids(2))))).toEqual([5 * LAYER + HEAD, LAYER]);
  });

  it('is split evenly with tensor parallelism', () => {
    expect(weights(program(unplanned(6), tensorParallel(ids(2))))).toEqual([
      3 * LAYER + HEAD / 2,
      3 * LAYER + HEAD / 2,
    ]);
  });

  it('goes to the faster devices where nothing else is said', () => {
    const machine = roundMachine(2);
    machine.devices[1]!.memoryBytesPerSecond *= 3;
    machine.devices[1]!.peakFlops.float16! *= 3;
    const four: Plan = { ...unplanned(6), groups: [{ layers: [1, 2, 3, 4], bypass: 0 }] };
    expect(program(four, branchParallel(ids(2)), machine).assignment).toEqual([[0, 1, 1, 1]]);
    const said = { ...branchParallel(ids(2)), assignment: [[0, 0, 0, 1]] };
    expect(program(four, said, machine).assignment).toEqual([[0, 0, 0, 1]]);
  });
});

describe('memory', () => {
  const four: Plan = { ...unplanned(6), groups: [{ layers: [1, 2, 3, 4], bypass: 0 }] };
  const cache = 2 * 2 * 16 * 2 * 2;
  const layer = 2 * LAYER + cache;

  it('limits what a device gets, with room kept for what is in no group', () => {
    const machine = roundMachine(2);
    machine.devices[0]!.memoryBytes = 4 * HEAD + 3.5 * layer;
    machine.devices[1]!.memoryBytes = 3.5 * layer;
    // Two ungrouped layers on the first leave it room for one branch.
    expect(program(four, branchParallel(ids(2)), machine).assignment).toEqual([[0, 1, 1, 1]]);
  });

  it('is no limit where the model fits nowhere', () => {
    const machine = roundMachine(2, { memoryBytes: 1 });
    expect(program(four, branchParallel(ids(2)), machine).assignment).toEqual([[0, 0, 1, 1]]);
  });
});

it('keeps weights and caches once', () => {
  const cache = 2 * 2 * 16 * 2 * 2;
  const embedding = 2 * HEAD;
  const bytes = (plan: Plan, placement: Placement) => program(plan, placement).memoryBytes;
  expect(bytes(unplanned(6), onOneDevice('0'))).toEqual([6 * (2 * LAYER + cache) + 2 * embedding]);
  expect(bytes(pair(0), branchParallel(ids(2)))).toEqual([
    5 * (2 * LAYER + cache) + 2 * embedding,
    2 * LAYER + cache,
  ]);
  expect(bytes(unplanned(6), tensorParallel(ids(2)))).toEqual(
    [0, 1].map(() => 6 * (LAYER + cache / 2) + 1.5 * embedding),
  );
});

it('begins a run at the start and after each exchange', () => {
  const { ops } = program(pair(0), branchParallel(ids(2)));
  const runs = ops.flatMap((op) =>
    op.kind === 'kernels' && op.startsRun ? [`${op.device} ${op.name}`] : [],
  );
  expect(runs).toEqual(['0 embedding', '0 layer 2 attention', '1 layer 3 attention', '0 layer 4 attention']);
});

describe('placements that are none', () => {
  it.each([
    [{ teams: [] }, 'PLACEMENT_INVALID'],
    [{ teams: [[]] }, 'PLACEMENT_INVALID'],
    [{ teams: [['0'], ['0']] }, 'PLACEMENT_INVALID'],
    [{ teams: [['0'], ['7']] }, 'PROFILE_NO_DEVICE'],
    [{ teams: [['0'], ['1']], assignment: [] }, 'PLACEMENT_INVALID'],
    [{ teams: [['0'], ['1']], assignment: [[0]] }, 'PLACEMENT_INVALID'],
    [{ teams: [['0'], ['1']], assignment: [[0, 2]] }, 'PLACEMENT_INVALID'],
  ])('%j is refused', (placement, code) => {
    expect(() => program(pair(0), placement)).toThrow(expect.objectContaining({ code }));
  });

  it('devices that do not divide into teams are refused', () => {
    expect(() => branchTeams(ids(3), 2)).toThrow(/divides into 2 teams/);
  });

  it('plans of another model are refused', () => {
    expect(() => program(unplanned(5), onOneDevice('0'))).toThrow(/another model/);
  });
});

describe('adds that join branches', () => {
  const counted = { ...TINY, kernels: { ...TINY.kernels, join: 1 } };
  const adds = (group: PlanGroup, placement: Placement) => {
    const { ops } = buildProgram({
      plan: { ...unplanned(6), groups: [group] },
      shape: counted,
      placement,
      profile: roundMachine(2),
      pass,
    });
    const by = [0, 0];
    for (const op of ops) {
      if (op.kind !== 'kernels') continue;
      by[op.device]! += op.kernels.filter(({ name }) => name === 'add').length;
    }
    return by;
  };

  it('are those of the graph: the sum of what attentions and FFNs give, and what each bypass needs', () => {
    for (const size of [2, 3, 4]) {
      const layers = Array.from({ length: size }, (_, i) => 1 + i);
      expect(adds({ layers, bypass: 0 }, onOneDevice('0'))[0]).toBe(2 * size - 1);
      for (const bypass of [1, 'full'] as const) {
        expect(adds({ layers, bypass }, onOneDevice('0'))[0]).toBe(3 * size - 2);
      }
    }
  });

  it('are made by each device that gets the sum, and by none for a wide layer', () => {
    expect(adds({ layers: [1, 2], bypass: 0 }, branchParallel(ids(2)))).toEqual([3, 3]);
    expect(adds({ layers: [1, 2], bypass: 'full', form: 'wide' }, onOneDevice('0'))).toEqual([0, 0]);
  });
});

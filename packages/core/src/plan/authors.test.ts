import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { uniformPlan } from '../grouping/uniform.js';
import { planFromAuthorsConfig, planToAuthorsConfig } from './authors.js';
import type { Bypass, Plan } from './types.js';

const planOf = (...groups: [layers: number[], bypass: Bypass][]): Plan => ({
  version: 1,
  layers: 12,
  groups: groups.map(([layers, bypass]) => ({ layers, bypass })),
});
const fault = (code: string, path: string) => expect.objectContaining({ name: 'PlanError', code, path });

describe('import', () => {
  it('reads the two keys, alone or in a whole config.json', () => {
    const keys = {
      cqil_layers: [
        [4, 5],
        [2, 3],
      ],
      d: 1,
    };
    const expected = [
      { layers: [2, 3], bypass: 1 },
      { layers: [4, 5], bypass: 1 },
    ];
    expect(planFromAuthorsConfig(keys, { layers: 8 })).toMatchObject({
      version: 1,
      layers: 8,
      groups: expected,
    });
    const config = JSON.stringify({ ...keys, num_hidden_layers: 8, model_type: 'llama', rope_scaling: null });
    expect(planFromAuthorsConfig(config).groups).toEqual(expected);
    expect(planFromAuthorsConfig(config, { layers: 8 }).layers).toBe(8);
  });

  it('takes a list of one layer as a layer that runs alone', () => {
    expect(planFromAuthorsConfig({ cqil_layers: [[0], [1, 2], [3]], d: 0 }, { layers: 4 }).groups).toEqual([
      { layers: [1, 2], bypass: 0 },
    ]);
  });

  it.each([
    [{ d: 0 }, 'PLAN_SCHEMA', 'cqil_layers'],
    [{ cqil_layers: [] }, 'PLAN_SCHEMA', 'd'],
    [{ cqil_layers: [], d: -1 }, 'PLAN_SCHEMA', 'd'],
    [{ cqil_layers: [], d: 'full' }, 'PLAN_SCHEMA', 'd'],
    [{ cqil_layers: [[]], d: 0 }, 'PLAN_SCHEMA', 'cqil_layers[0]'],
    [{ cqil_layers: [[1, 'a']], d: 0 }, 'PLAN_SCHEMA', 'cqil_layers[0][1]'],
    [{ cqil_layers: [[1, 3]], d: 0 }, 'PLAN_NOT_NEIGHBOURS', 'cqil_layers[0][1]'],
    [{ cqil_layers: [[2, 1]], d: 0 }, 'PLAN_NOT_NEIGHBOURS', 'cqil_layers[0][1]'],
    [
      {
        cqil_layers: [
          [1, 2],
          [2, 3],
        ],
        d: 0,
      },
      'PLAN_OVERLAP',
      'cqil_layers[1][0]',
    ],
    [{ cqil_layers: [[1, 2], [2]], d: 0 }, 'PLAN_OVERLAP', 'cqil_layers[1][0]'],
    [{ cqil_layers: [[7, 8]], d: 0 }, 'PLAN_OUT_OF_RANGE', 'cqil_layers[0][1]'],
    [{ cqil_layers: [[99]], d: 0 }, 'PLAN_OUT_OF_RANGE', 'cqil_layers[0][0]'],
    [{ cqil_layers: [], d: 0, num_hidden_layers: 9 }, 'PLAN_LAYER_COUNT', 'num_hidden_layers'],
  ])('refuses %j', (config, code, path) => {
    expect(() => planFromAuthorsConfig(config, { layers: 8 })).toThrowError(fault(code, path));
  });

  it('needs to know the number of layers', () => {
    expect(() => planFromAuthorsConfig({ cqil_layers: [], d: 0 })).toThrowError(
      fault('PLAN_LAYER_COUNT', 'num_hidden_layers'),
    );
  });
});

describe('export', () => {
  it('writes one distance for all groups', () => {
    expect(planToAuthorsConfig(planOf([[2, 3], 1], [[4, 5, 6], 1]))).toEqual({
      cqil_layers: [
        [2, 3],
        [4, 5, 6],
      ],
      d: 1,
    });
    expect(planToAuthorsConfig(planOf())).toEqual({ cqil_layers: [], d: 0 });
    expect(planToAuthorsConfig(planOf([[2, 3], 7])).d).toBe(7);
  });

  it('unites distances that differ only beyond the size of their group', () => {
    expect(planToAuthorsConfig(planOf([[0, 1], 1], [[2, 3, 4], 2])).d).toBe(2);
    expect(planToAuthorsConfig(planOf([[0, 1], 9], [[2, 3, 4, 5], 2])).d).toBe(2);
  });

  it.each([
    [planOf([[0, 1], 'full']), 'groups[0].bypass'],
    [planOf([[0, 1], 0], [[2, 3], 1]), 'groups[1].bypass'],
    [planOf([[0, 1, 2], 2], [[3, 4, 5], 1]), 'groups[0].bypass'],
    [planOf([[0, 1, 2], 0], [[3, 4, 5], 1]), 'groups[1].bypass'],
    [{ ...planOf(), groups: [{ layers: [0, 1], bypass: 0, form: 'packed' as const }] }, 'groups[0].form'],
  ])('refuses what the two keys cannot say', (plan, path) => {
    expect(() => planToAuthorsConfig(plan)).toThrowError(fault('PLAN_NOT_EXPRESSIBLE', path));
  });
});

it('brings every uniform plan there and back', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 40 }),
      fc.integer({ min: 1, max: 6 }),
      fc.nat({ max: 6 }),
      (layers, groupSize, bypass) => {
        const plan = uniformPlan({ layers, groupSize, bypass });
        const config = planToAuthorsConfig(plan);
        expect(planFromAuthorsConfig(config, { layers }).groups).toEqual(plan.groups);
      },
    ),
  );
});

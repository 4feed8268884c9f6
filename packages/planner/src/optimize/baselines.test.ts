import { parsePlan, sequentialSteps, uniformPlans } from '@cqil/core';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { skipBaselines, spansOf, uniformProposals } from './baselines.js';

const sizes = fc
  .integer({ min: 2, max: 40 })
  .chain((layers) =>
    fc.tuple(
      fc.constant(layers),
      fc.integer({ min: 1, max: layers - 1 }),
      fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { minLength: layers, maxLength: layers }),
    ),
  );

const skipOf = (change: ReturnType<typeof skipBaselines>[number]['change']) =>
  'skip' in change ? change.skip : [];

describe('layers left out', () => {
  it('are as many as leave the steps, in order, each once, and never the first', () => {
    fc.assert(
      fc.property(sizes, ([layers, steps, influence]) => {
        const found = skipBaselines(layers, steps, influence);
        expect(found.map(({ id }) => id)).toContain('skip-influence');
        for (const { change } of found) {
          const skip = skipOf(change);
          expect(skip).toHaveLength(layers - steps);
          expect(skip).toEqual([...new Set(skip)].sort((a, b) => a - b));
          expect(skip[0]).toBeGreaterThan(0);
          expect(skip.at(-1)).toBeLessThan(layers);
        }
      }),
    );
  });

  it('are those that their names say', () => {
    const influence = Array.from({ length: 30 }, (_, i) => (i === 0 ? 0 : Math.abs(i - 20) + 1));
    const found = new Map(skipBaselines(30, 22, influence).map(({ id, change }) => [id, skipOf(change)]));
    expect(found.get('skip-alternate')).toEqual([13, 15, 17, 19, 21, 23, 25, 27]);
    expect(found.get('skip-influence')).toEqual([16, 17, 18, 19, 20, 21, 22, 23].toSorted((a, b) => a - b));
    expect(found.get('skip-even')).toEqual([3, 6, 10, 13, 16, 19, 23, 26]);
  });

  it('are of the lowest influence', () => {
    fc.assert(
      fc.property(sizes, ([layers, steps, influence]) => {
        const skip = skipOf(
          skipBaselines(layers, steps, influence).find(({ id }) => id === 'skip-influence')!.change,
        );
        const most = Math.max(...skip.map((layer) => influence[layer]!));
        for (let layer = 1; layer < layers; layer++) {
          if (!skip.includes(layer)) expect(influence[layer]).toBeGreaterThanOrEqual(most);
        }
      }),
    );
  });

  it('are none where no layer is to go', () => {
    expect(skipBaselines(6, 6, [0, 0, 0, 0, 0, 0])).toEqual([]);
  });

  it('lie behind a layer that stays, in spans that leave the same steps', () => {
    fc.assert(
      fc.property(sizes, ([layers, steps, influence]) => {
        for (const { change } of skipBaselines(layers, steps, influence)) {
          const skip = skipOf(change);
          const plan = parsePlan(spansOf(layers, skip), { layers });
          expect(sequentialSteps(plan)).toBe(steps);
          // All members of a span but its first are left out, and nothing else is.
          expect(plan.groups.flatMap((group) => group.layers.slice(1))).toEqual(skip);
          for (const group of plan.groups) expect(skip).not.toContain(group.layers[0]);
        }
      }),
    );
  });
});

describe('uniform plans', () => {
  const layers = 12;
  const candidates = [2, 3, 4].flatMap((size) =>
    Array.from({ length: layers - size + 1 }, (_, first) =>
      ([0, 1, 'full'] as const).map((bypass) => ({
        layers: Array.from({ length: size }, (__, i) => first + i),
        bypass,
        kl: size * (first + 1) + (bypass === 'full' ? 0.5 : bypass),
        crossEntropy: 0,
      })),
    ).flat(),
  );

  it('are the published ones of the least sums, with so many steps', () => {
    const { paper, parallel } = uniformProposals(layers, 8, candidates);
    expect(paper).toHaveLength(9);
    expect(parallel).toHaveLength(3);
    const known = new Set(
      uniformPlans({ layers, groupSizes: [2, 3, 4], bypasses: [0, 1, 2, 3, 'full'], steps: 8 }).map((plan) =>
        JSON.stringify(plan.groups),
      ),
    );
    for (const plan of [...paper, ...parallel]) {
      expect(sequentialSteps(plan)).toBe(8);
      expect(known).toContain(JSON.stringify(plan.groups));
    }
    for (const plan of parallel) {
      expect(plan.groups.every((group) => group.layers.length === 2 && group.bypass === 'full')).toBe(true);
    }
    // Earlier layers cost less here, and so does no bypass.
    expect(parallel.map((plan) => plan.groups[0]!.layers[0])).toEqual([0, 1, 2]);
    expect(paper[0]!.groups.map((group) => [group.layers[0], group.bypass])).toEqual([
      [0, 0],
      [2, 0],
      [4, 0],
      [6, 0],
    ]);
  });

  it('are left out where a group of theirs cannot be made', () => {
    const some = candidates.filter((candidate) => !candidate.layers.includes(0));
    const { paper, parallel } = uniformProposals(layers, 8, some);
    for (const plan of [...paper, ...parallel]) {
      expect(plan.groups.flatMap((group) => group.layers)).not.toContain(0);
    }
    expect(uniformProposals(layers, 8, [])).toEqual({ paper: [], parallel: [] });
    expect(uniformProposals(layers, layers, candidates)).toEqual({ paper: [], parallel: [] });
  });
});

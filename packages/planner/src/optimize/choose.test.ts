import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { Bypass, Plan } from '@cqil/core';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { ModelParts } from '../parts/index.js';
import { defaultBudget, PlanMeter, PlanSearch } from './choose.js';
import { WorkFolder } from './work-folder.js';

const layers = 8;
const plan = (...groups: [first: number, bypass: Bypass][]): Plan => ({
  version: 1,
  layers,
  groups: groups.map(([first, bypass]) => ({ layers: [first, first + 1], bypass })),
});
const line = (of: Plan, kl: number) => ({
  plan: of,
  kinds: [
    { kind: 'prose', kl: kl / 2, crossEntropy: 0.1 },
    { kind: 'code', kl: (3 * kl) / 2, crossEntropy: 0.3 },
  ],
});

let folder: string;
let work: WorkFolder;
beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'choose-test-'));
  work = await WorkFolder.open(path.join(folder, 'out.work'), {}, false);
});
afterEach(() => rm(folder, { recursive: true }));

/** A meter that can measure nothing beyond what the work folder holds. */
function meter(): Promise<PlanMeter> {
  const parts = {} as ModelParts;
  return PlanMeter.open(parts, () => Promise.reject(new Error('nothing to measure with')), work, undefined);
}

describe('PlanMeter', () => {
  it('takes from the work folder what it is asked for, and knows of nothing else', async () => {
    for (const [first, kl] of [
      [1, 0.1],
      [3, 0.2],
    ] as const) {
      await work.append('plans.jsonl', line(plan([first, 1]), kl));
    }
    const opened = await meter();
    expect(opened.known).toEqual([]);
    const [found] = await opened.measure([plan([3, 1])]);
    expect(found).toMatchObject({ steps: 7, plan: plan([3, 1]) });
    expect(found?.kl).toBeCloseTo(0.2, 12);
    expect(found?.excess).toBeCloseTo(Math.expm1(0.2), 12);
    expect(opened.known).toEqual([found]);
    await expect(opened.measure([plan([5, 1])])).rejects.toThrowError('nothing to measure with');
    expect(opened.known).toEqual([found]);
  });

  it('tells plans apart by what they do', async () => {
    await work.append('plans.jsonl', line(plan([1, 'full']), 0.1));
    await work.append('plans.jsonl', line(plan([1, 7]), 0.3));
    const opened = await meter();
    const found = await opened.measure([plan([1, 1]), plan([1, 'full'])]);
    expect(found.map(({ kl }) => kl)).toEqual([0.3, 0.1]);
  });

  it('passes over lines that hold no measured plan', async () => {
    await work.append('plans.jsonl', line(plan([1, 1]), 0.1));
    await work.append('plans.jsonl', { plan: { version: 1, layers: 3, groups: 7 }, kinds: [] });
    await work.append('plans.jsonl', { plan: plan([3, 1]), kinds: [{ kind: 'prose', kl: null }] });
    const opened = await meter();
    expect(await opened.measure([plan([1, 1])])).toHaveLength(1);
    await expect(opened.measure([plan([3, 1])])).rejects.toThrowError('nothing to measure with');
  });
});

describe('PlanSearch', () => {
  const candidates = [0, 1, 2, 3, 4, 5, 6].map((first) => ({
    layers: [first, first + 1],
    bypass: 1,
    kl: first === 0 ? 9 : 0.1 * first,
    crossEntropy: 0,
  }));

  it('goes the same way whatever an earlier run measured further on', async () => {
    // All pairs of pairs: 1+3 cost less together than the sum of any others promises.
    const all: Plan[] = [plan()];
    for (let a = 0; a < 7; a++) {
      all.push(plan([a, 1]));
      for (let b = a + 2; b < 7; b++) {
        all.push(plan([a, 1], [b, 1]));
        for (let c = b + 2; c < 7; c++) {
          all.push(plan([a, 1], [b, 1], [c, 1]));
          for (let d = c + 2; d < 7; d++) all.push(plan([a, 1], [b, 1], [c, 1], [d, 1]));
        }
      }
    }
    const cost = (of: Plan) =>
      of.groups.reduce((sum, { layers: [first] }) => sum + (first === 0 ? 9 : 0.1 * first!), 0) *
      (1 +
        0.3 * Math.sin(of.groups.reduce((sum, { layers: [first] }) => 7 * sum + first!, of.groups.length)));
    for (const one of all) await work.append('plans.jsonl', line(one, cost(one)));

    const opened = await meter();
    const search = new PlanSearch(layers, candidates, opened, { budget: 4 });
    expect(search.steps).toEqual([7, 6, 5, 4]);
    await search.overview();
    const best = await search.best(6);
    expect(opened.known.length).toBeLessThan(all.length);
    expect(search.front.map(({ steps }) => steps)).toContain(6);

    // The same with only what was asked for in the work folder: what a first run would have measured.
    const asked = opened.known;
    await writeFile(work.path('plans.jsonl'), '');
    for (const { plan: of } of asked) await work.append('plans.jsonl', line(of, cost(of)));
    const first = await meter();
    const again = new PlanSearch(layers, candidates, first, { budget: 4 });
    await again.overview();
    expect(await again.best(6)).toEqual(best);
    expect(first.known).toEqual(asked);
    expect(again.front).toEqual(search.front);
  });

  it('has no plan in its front that another beats with fewer steps', async () => {
    for (const [of, kl] of [
      [plan([1, 1]), 0.5],
      [plan([3, 1]), 0.6],
      [plan([1, 1], [3, 1]), 0.4],
    ] as const) {
      await work.append('plans.jsonl', line(of, kl));
    }
    const search = new PlanSearch(
      layers,
      candidates.filter(({ layers: [first] }) => first === 1 || first === 3),
      await meter(),
      { budget: 1 },
    );
    await search.best(7);
    await search.best(6);
    expect(search.front.map(({ steps }) => steps)).toEqual([6]);
  });
});

it('measures more plans of smaller models', () => {
  expect(defaultBudget(24, 30, 576)).toBe(24);
  expect(defaultBudget(24, 80, 8192)).toBe(24);
  expect(defaultBudget(24, 30, 288)).toBe(96);
  expect(defaultBudget(24, 6, 64)).toBe(2000);
  expect(defaultBudget(8, 30, 288)).toBe(32);
});

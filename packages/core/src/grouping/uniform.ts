import { PlanError } from '../errors.js';
import { show } from '../plan/path.js';
import { MAX_LAYERS } from '../plan/schema.js';
import type { Bypass, Plan, PlanGroup } from '../plan/types.js';

/** The paper's four parameters, with the number of layers of the model. */
export interface UniformOptions {
  readonly layers: number;
  /** P: layers in a group. */
  readonly groupSize: number;
  /** S: first layer of the first group (default 0). */
  readonly start?: number | undefined;
  /** E: one past the last layer of the last group (default `layers`). */
  readonly end?: number | undefined;
  /** D: bypass distance of all groups (default 0, the plain method). */
  readonly bypass?: Bypass | undefined;
}

/**
 * CQIL's grouping (arXiv 2404.06709): layers S to E − 1 in groups of P, in order, all with bypass distance D.
 *
 * Where E − S is no multiple of P the last group is shorter, and where one layer is left it runs alone: a group of
 * one is no group. So P = 1, or S = E, gives a plan without groups.
 *
 * @throws PlanError `PLAN_PARAMETERS`, with the parameter in `path`.
 * @example
 * uniformPlan({ layers: 30, groupSize: 2, start: 12, end: 28, bypass: 1 });
 */
export function uniformPlan(options: UniformOptions): Plan {
  const { layers, groupSize, start = 0, end = layers, bypass = 0 } = options;
  checkWhole('layers', layers, 1, MAX_LAYERS);
  checkWhole('groupSize', groupSize, 1, Number.MAX_SAFE_INTEGER);
  checkWhole('start', start, 0, layers);
  checkWhole('end', end, start, layers);
  checkBypass(bypass);
  return {
    version: 1,
    layers,
    groups: runsOf(start, end, groupSize).map((run): PlanGroup => ({ layers: run, bypass })),
    provenance: { method: 'uniform', groupSize, start, end, bypass },
  };
}

/** Runs of `size` layers from `start` up to `end`, the last one shorter where need be, none of one layer. */
export function runsOf(start: number, end: number, size: number): number[][] {
  const runs: number[][] = [];
  for (let first = start; first + 1 < end; first += size) {
    const length = Math.min(size, end - first);
    if (length > 1) runs.push(Array.from({ length }, (_, i) => first + i));
  }
  return runs;
}

/** @throws PlanError `PLAN_PARAMETERS` */
export function checkWhole(name: string, value: number, least: number, most: number): void {
  if (Number.isSafeInteger(value) && value >= least && value <= most) return;
  throw new PlanError('PLAN_PARAMETERS', 'not a value this can be', {
    path: name,
    expected: `a whole number from ${least} to ${most}`,
    found: show(value),
  });
}

/** @throws PlanError `PLAN_PARAMETERS` */
export function checkBypass(bypass: Bypass, path = 'bypass'): void {
  if (bypass === 'full' || (Number.isSafeInteger(bypass) && bypass >= 0)) return;
  throw new PlanError('PLAN_PARAMETERS', 'not a bypass distance', {
    path,
    expected: 'a whole number, 0 or more, or "full"',
    found: show(bypass),
  });
}

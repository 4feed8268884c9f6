import { PlanError } from '../errors.js';
import { show } from '../plan/path.js';
import { MAX_LAYERS } from '../plan/schema.js';
import { effectiveBypass } from '../plan/steps.js';
import type { Plan, PlanGroup, PlanProvenance } from '../plan/types.js';
import type { CandidateGroup } from './costs.js';
import { checkBypass, checkWhole } from './uniform.js';

/** A candidate group as the searches work with it. */
export interface Candidate {
  /** Its place in `CandidateSet.all`. */
  readonly id: number;
  /** Its place in the list that the caller gave. */
  readonly input: number;
  /** First layer, and one past the last. */
  readonly first: number;
  readonly end: number;
  /** Sequential steps that it saves: its layers less one. */
  readonly saved: number;
  /** What it costs when it alone is switched on. */
  readonly cost: number;
  readonly group: PlanGroup;
}

/** A plan as the ids of its groups, ascending. Candidates are sorted by first layer, so this is layer order. */
export type Selection = readonly number[];

/** A selection and what it costs. */
export interface RankedSelection {
  readonly selection: Selection;
  readonly cost: number;
}

/** Checked candidates, sorted by first layer, then number of layers, then bypass ("full" last). */
export interface CandidateSet {
  readonly layers: number;
  readonly all: readonly Candidate[];
  /** By first layer: 0 to layers − 1. */
  readonly startingAt: readonly (readonly Candidate[])[];
  /** By one past the last layer: 0 to layers. */
  readonly endingAt: readonly (readonly Candidate[])[];
}

/**
 * @throws PlanError `PLAN_PARAMETERS`: a candidate that is no run of at least two neighbouring layers of the model,
 * two that mean the same group, or a cost that is not finite; the path is that in `candidates`.
 */
export function candidateSet<C extends CandidateGroup>(
  layers: number,
  candidates: readonly C[],
  cost: (candidate: C) => number,
): CandidateSet {
  checkWhole('layers', layers, 1, MAX_LAYERS);
  const seen = new Map<string, number>();
  const unsorted = candidates.map((candidate, input) => {
    const path = `candidates[${input}]`;
    checkRun(candidate.layers, layers, path);
    checkBypass(candidate.bypass, `${path}.bypass`);
    const key = groupKey(candidate);
    const twin = seen.get(key);
    if (twin !== undefined) {
      throw new PlanError('PLAN_PARAMETERS', 'this group is a candidate already', {
        path,
        expected: 'each run of layers once with each bypass that differs in effect',
        found: `the group of candidates[${twin}]`,
      });
    }
    seen.set(key, input);
    const value = cost(candidate);
    checkCost(value, path);
    const first = candidate.layers[0]!;
    return {
      input,
      first,
      end: first + candidate.layers.length,
      saved: candidate.layers.length - 1,
      cost: value,
      group: { layers: [...candidate.layers], bypass: candidate.bypass },
    };
  });
  const all = unsorted
    .sort((a, b) => a.first - b.first || a.end - b.end || bypassRank(a.group) - bypassRank(b.group))
    .map((candidate, id): Candidate => ({ id, ...candidate }));
  const startingAt: Candidate[][] = Array.from({ length: layers }, () => []);
  const endingAt: Candidate[][] = Array.from({ length: layers + 1 }, () => []);
  for (const candidate of all) {
    startingAt[candidate.first]!.push(candidate);
    endingAt[candidate.end]!.push(candidate);
  }
  return { layers, all, startingAt, endingAt };
}

/** The same for groups that mean the same, different for others. */
export function groupKey(group: PlanGroup): string {
  return `${group.layers[0]}-${group.layers.at(-1)}:${effectiveBypass(group)}`;
}

/**
 * The order of plans of equal cost: at the first group in which they differ, the one that begins at the earlier
 * layer goes first, then the shorter one, then the one with the smaller bypass ("full" last).
 */
export function compareSelections(a: Selection, b: Selection): number {
  const shared = Math.min(a.length, b.length);
  for (let i = 0; i < shared; i++) {
    if (a[i] !== b[i]) return a[i]! - b[i]!;
  }
  // Plans with the same number of steps are never a beginning of one another.
  return b.length - a.length;
}

/** The interactions of all pairs of n candidates: entry `earlier.id * n + later.id`; 0 where they overlap. */
export type PairMatrix = Float64Array;

/**
 * The sum of the costs in layer order, then of the interactions of all pairs. All searches compare plans by this
 * very sum, so that equal plans cost the same to the last bit whatever found them.
 */
export function scoreSelection(set: CandidateSet, selection: Selection, pairs?: PairMatrix): number {
  let sum = 0;
  for (const id of selection) sum += set.all[id]!.cost;
  if (pairs === undefined) return sum;
  const n = set.all.length;
  for (let i = 0; i < selection.length; i++) {
    for (let j = i + 1; j < selection.length; j++) sum += pairs[selection[i]! * n + selection[j]!]!;
  }
  return sum;
}

/** The Plan document of a selection. */
export function toPlan(set: CandidateSet, selection: Selection, provenance?: PlanProvenance): Plan {
  return {
    version: 1,
    layers: set.layers,
    groups: selection.map((id) => set.all[id]!.group),
    ...(provenance === undefined ? {} : { provenance }),
  };
}

/** Plans as selections; a group's form is not looked at, since it changes nothing of what the group computes. */
export function selectionReader(set: CandidateSet): (plan: Plan) => Selection | undefined {
  const ids = new Map(set.all.map((candidate) => [groupKey(candidate.group), candidate.id]));
  return (plan) => {
    const selection = plan.groups.map((group) => ids.get(groupKey(group)));
    return selection.some((id) => id === undefined)
      ? undefined
      : (selection as number[]).toSorted((a, b) => a - b);
  };
}

/** @throws PlanError `PLAN_PARAMETERS` */
export function checkCost(value: number, path: string): void {
  if (Number.isFinite(value)) return;
  throw new PlanError('PLAN_PARAMETERS', 'not a cost', {
    path,
    expected: 'a finite number',
    found: show(value),
  });
}

function checkRun(run: readonly number[], layers: number, path: string): void {
  const isRun =
    run.length > 1 &&
    run.every((layer, i) => Number.isSafeInteger(layer) && layer >= 0 && layer === run[0]! + i) &&
    run.at(-1)! < layers;
  if (isRun) return;
  throw new PlanError('PLAN_PARAMETERS', 'not a group of layers of this model', {
    path: `${path}.layers`,
    expected: `at least two neighbours in ascending order, from 0 to ${layers - 1}`,
    found: `[${run.slice(0, 16).join(', ')}]`,
  });
}

function bypassRank(group: PlanGroup): number {
  const bypass = effectiveBypass(group);
  return bypass === 'full' ? Number.MAX_SAFE_INTEGER : bypass;
}

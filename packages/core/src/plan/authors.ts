import { z } from 'zod';
import { PlanError } from '../errors.js';
import { toJsonValue } from './json.js';
import { validatePlan } from './parse.js';
import { formatPath, show, valueAt } from './path.js';
import { MAX_LAYERS } from './schema.js';
import { effectiveBypass } from './steps.js';
import type { Plan, PlanGroup } from './types.js';

/**
 * The two keys that the authors of CQIL put in a model's `config.json` (github.com/Photooon/CQIL, 2024).
 *
 * `cqil_layers` lists the groups; layers that run alone are not in it. `d` is the bypass distance of all groups.
 */
export interface AuthorsConfig {
  readonly cqil_layers: readonly (readonly number[])[];
  readonly d: number;
}

const authorsSchema = z.looseObject({
  cqil_layers: z
    .array(
      z
        .array(
          z
            .int()
            .min(0)
            .max(MAX_LAYERS - 1),
        )
        .min(1)
        .max(MAX_LAYERS),
    )
    .max(MAX_LAYERS),
  d: z.int().min(0),
  num_hidden_layers: z.int().min(1).max(MAX_LAYERS).optional(),
});

/**
 * A plan from the authors' configuration: the two keys alone, or a whole `config.json` that holds them.
 *
 * Lists may come in any order. A list of one layer says that it runs alone, and becomes no group.
 *
 * @param config JSON text, or the value it stands for.
 * @param options.layers number of layers of the model; may be left out where `config` has `num_hidden_layers`.
 * @throws PlanError with a code of `PLAN_ERROR_CODES` and the offending field in `path`.
 */
export function planFromAuthorsConfig(config: unknown, options: { readonly layers?: number } = {}): Plan {
  const value = toJsonValue(config);
  const parsed = authorsSchema.safeParse(value);
  if (!parsed.success) {
    const issue = parsed.error.issues[0]!;
    throw new PlanError('PLAN_SCHEMA', "not a configuration of CQIL's authors", {
      path: formatPath(issue.path),
      expected:
        '{"cqil_layers": [[first, ..., last], ...], "d": bypass distance}, whole numbers of 0 or more',
      found: show(valueAt(value, issue.path)),
    });
  }
  const { cqil_layers: lists, d, num_hidden_layers: own } = parsed.data;
  const layers = options.layers ?? own;
  if (layers === undefined) {
    throw new PlanError('PLAN_LAYER_COUNT', 'the number of layers of the model is not known', {
      path: 'num_hidden_layers',
      expected: 'num_hidden_layers in the configuration, or the option layers',
      found: 'neither',
    });
  }
  if (own !== undefined && own !== layers) {
    throw new PlanError('PLAN_LAYER_COUNT', 'the configuration is for another model', {
      path: 'num_hidden_layers',
      expected: `${layers}, the number of layers of the model`,
      found: `${own}`,
    });
  }
  checkLists(lists, layers);
  const groups = lists
    .filter((list) => list.length > 1)
    .toSorted((a, b) => a[0]! - b[0]!)
    .map((list): PlanGroup => ({ layers: list, bypass: d }));
  return { version: 1, layers, groups, provenance: { method: 'import of cqil_layers and d' } };
}

/**
 * The authors' two keys for a plan.
 *
 * They have one bypass distance for all groups, no "full" and no form. Groups whose distances differ only where
 * they are beyond their size (see `effectiveBypass`) can still be said. Provenance is left out.
 *
 * @throws PlanError `PLAN_NOT_EXPRESSIBLE` where the plan says more.
 */
export function planToAuthorsConfig(plan: Plan): AuthorsConfig {
  validatePlan(plan);
  let exact: { readonly d: number; readonly index: number } | undefined;
  let least = 0;
  let common = plan.groups[0]?.bypass;
  for (const [index, group] of plan.groups.entries()) {
    if (group.form !== undefined && group.form !== 'branches') {
      throw notExpressible(`groups[${index}].form`, 'no form, or "branches"', `"${group.form}"`);
    }
    const d = effectiveBypass(group);
    if (d === 'full') throw notExpressible(`groups[${index}].bypass`, 'a number', '"full"');
    if (group.bypass !== common) common = undefined;
    if (d === group.layers.length - 1) least = Math.max(least, d);
    else if (exact === undefined) exact = { d, index };
    else if (exact.d !== d) {
      throw notExpressible(`groups[${index}].bypass`, `${exact.d}, as in groups[${exact.index}]`, `${d}`);
    }
  }
  if (exact !== undefined && least > exact.d) {
    const index = plan.groups.findIndex((group) => effectiveBypass(group) === least);
    throw notExpressible(`groups[${index}].bypass`, `${exact.d}, as in groups[${exact.index}]`, `${least}`);
  }
  const d = typeof common === 'number' ? common : (exact?.d ?? least);
  const sorted = plan.groups.toSorted((a, b) => a.layers[0]! - b.layers[0]!);
  return { cqil_layers: sorted.map((group) => [...group.layers]), d };
}

/** The rules of plans, with paths into the configuration. */
function checkLists(lists: readonly (readonly number[])[], layers: number): void {
  const owner = new Set<number>();
  for (const [index, list] of lists.entries()) {
    for (const [position, layer] of list.entries()) {
      const path = `cqil_layers[${index}][${position}]`;
      const before = list[position - 1];
      if (layer >= layers) {
        throw new PlanError('PLAN_OUT_OF_RANGE', 'no such layer', {
          path,
          expected: `0 to ${layers - 1}`,
          found: `${layer}`,
        });
      }
      if (before !== undefined && layer !== before + 1) {
        throw new PlanError(
          'PLAN_NOT_NEIGHBOURS',
          'the layers of a group must be neighbours in ascending order',
          {
            path,
            expected: `${before + 1}, the layer after ${before}`,
            found: `${layer}`,
          },
        );
      }
      if (owner.has(layer)) {
        throw new PlanError('PLAN_OVERLAP', `layer ${layer} is in two lists`, {
          path,
          expected: 'each layer in at most one list',
          found: `${layer}`,
        });
      }
      owner.add(layer);
    }
  }
}

function notExpressible(path: string, expected: string, found: string): PlanError {
  return new PlanError('PLAN_NOT_EXPRESSIBLE', "the authors' two keys cannot say this", {
    path,
    expected,
    found,
    hint: 'Keep the plan in its own format.',
  });
}

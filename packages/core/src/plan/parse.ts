import type { z } from 'zod';
import { PlanError, type PlanErrorDetails } from '../errors.js';
import type { PlanErrorCode } from './codes.js';
import { toJsonValue } from './json.js';
import { formatPath, show, valueAt } from './path.js';
import { planSchema } from './schema.js';
import type { GroupForm, Plan, PlanGroup } from './types.js';

/** What a plan is checked against, besides its own rules. */
export interface PlanChecks {
  /** Number of layers of the model the plan is to be used on. */
  readonly layers?: number | undefined;
  /** Layers that cannot be grouped in this model, each with the reason. */
  readonly notGroupable?: ReadonlyMap<number, string> | undefined;
  /** Forms that can be written; all when absent. */
  readonly forms?: readonly GroupForm[] | undefined;
}

/**
 * Reads a plan document.
 *
 * Groups may come in any order; they are sorted by first layer. Fields the format does not know are refused, for
 * a misspelt one would silently change the plan; what is not part of it belongs in `provenance`.
 *
 * @param document JSON text, or the value it stands for.
 * @throws PlanError with a code of `PLAN_ERROR_CODES` and the offending field in `path`.
 * @example
 * const plan = parsePlan('{"version":1,"layers":30,"groups":[{"layers":[12,13],"bypass":1}]}', { layers: 30 });
 */
export function parsePlan(document: unknown, checks: PlanChecks = {}): Plan {
  const value = toJsonValue(document);
  refuseOtherVersion(value);
  const parsed = planSchema.safeParse(value);
  if (!parsed.success) throw schemaError(parsed.error.issues[0], value);
  const { version, layers, groups, provenance } = parsed.data;
  const plan: Plan = { version, layers, groups, ...(provenance === undefined ? {} : { provenance }) };
  validatePlan(plan, checks);
  return { ...plan, groups: groups.toSorted((a, b) => a.layers[0]! - b.layers[0]!) };
}

/**
 * Checks what no single field can tell: ranges, neighbours, overlaps, and the fit to a model.
 *
 * @throws PlanError with a code of `PLAN_ERROR_CODES` and the offending field in `path`.
 */
export function validatePlan(plan: Plan, checks: PlanChecks = {}): void {
  if (checks.layers !== undefined && plan.layers !== checks.layers) {
    fail('PLAN_LAYER_COUNT', 'the plan is for another model', {
      path: 'layers',
      expected: `${checks.layers}, the number of layers of the model`,
      found: `${plan.layers}`,
      hint: 'Make a plan for this model.',
    });
  }
  for (const [index, group] of plan.groups.entries()) checkRun(plan, group, index);
  checkOverlap(plan);
  for (const [index, group] of plan.groups.entries()) checkFit(group, index, checks);
}

function checkRun(plan: Plan, group: PlanGroup, index: number): void {
  if (group.layers.length < 2) throw groupTooSmall(index, group.layers.length);
  for (const [position, layer] of group.layers.entries()) {
    const path = `groups[${index}].layers[${position}]`;
    if (layer < 0 || layer >= plan.layers) {
      fail('PLAN_OUT_OF_RANGE', 'no such layer', {
        path,
        expected: `0 to ${plan.layers - 1}`,
        found: `${layer}`,
      });
    }
    const before = group.layers[position - 1];
    if (before !== undefined && layer !== before + 1) {
      fail('PLAN_NOT_NEIGHBOURS', 'the layers of a group must be neighbours in ascending order', {
        path,
        expected: `${before + 1}, the layer after ${before}`,
        found: `${layer}`,
        hint: 'Split the group where layers are missing.',
      });
    }
  }
}

function checkOverlap(plan: Plan): void {
  const owner = new Map<number, number>();
  for (const [index, group] of plan.groups.entries()) {
    for (const [position, layer] of group.layers.entries()) {
      const other = owner.get(layer);
      if (other !== undefined) {
        fail('PLAN_OVERLAP', `layer ${layer} is in two groups`, {
          path: `groups[${index}].layers[${position}]`,
          expected: 'each layer in at most one group',
          found: `layer ${layer} also in groups[${other}]`,
        });
      }
      owner.set(layer, index);
    }
  }
}

function checkFit(group: PlanGroup, index: number, checks: PlanChecks): void {
  for (const [position, layer] of group.layers.entries()) {
    const reason = checks.notGroupable?.get(layer);
    if (reason === undefined) continue;
    fail('PLAN_LAYER_NOT_GROUPABLE', `layer ${layer} cannot be grouped in this model`, {
      path: `groups[${index}].layers[${position}]`,
      found: reason,
      hint: 'Leave this layer out of all groups.',
    });
  }
  const form = group.form ?? 'branches';
  if (checks.forms !== undefined && !checks.forms.includes(form)) {
    fail('PLAN_FORM_UNSUPPORTED', 'this form of a group cannot be written', {
      path: `groups[${index}].form`,
      expected: checks.forms.map((known) => `"${known}"`).join(' or '),
      found: `"${form}"`,
    });
  }
}

/** A later version may differ in any field, so this comes before all other rules. */
function refuseOtherVersion(value: unknown): void {
  if (typeof value !== 'object' || value === null || !Object.hasOwn(value, 'version')) return;
  const { version } = value as { version: unknown };
  if (typeof version !== 'number' || version === 1) return;
  fail('PLAN_VERSION', 'this release cannot read plans of this version', {
    path: 'version',
    expected: '1',
    found: String(version),
    hint: version > 1 ? 'Use a newer release.' : 'Write the plan anew.',
  });
}

type Issue = z.core.$ZodIssue;

/** The first fault in document order, as one error. */
function schemaError(issue: Issue | undefined, document: unknown): PlanError {
  if (issue === undefined) return planError('PLAN_SCHEMA', 'this is not a plan', {});
  const found = valueAt(document, issue.path);
  if (
    issue.code === 'too_small' &&
    issue.path.length === 3 &&
    issue.path[0] === 'groups' &&
    issue.path[2] === 'layers'
  ) {
    return groupTooSmall(Number(issue.path[1]), Array.isArray(found) ? found.length : 0);
  }
  if (issue.code === 'unrecognized_keys') {
    return planError('PLAN_SCHEMA', 'unknown field', {
      path: formatPath([...issue.path, issue.keys[0]!]),
      expected: 'only the fields of the plan format',
      hint: 'Remove it, or put it in provenance.',
    });
  }
  const message =
    found === undefined && issue.path.length > 0 ? 'this field is missing' : 'not a valid value';
  return planError('PLAN_SCHEMA', message, {
    path: formatPath(issue.path),
    expected: expectation(issue),
    found: show(found),
  });
}

/** What zod wanted, in words. */
function expectation(issue: Issue): string {
  const last = issue.path.at(-1);
  if (issue.code === 'invalid_union' || last === 'bypass') return 'a whole number, 0 or more, or "full"';
  switch (issue.code) {
    case 'invalid_type':
      return issue.expected === 'array'
        ? 'a list'
        : issue.expected === 'int'
          ? 'a whole number'
          : `a value of type ${issue.expected}`;
    case 'invalid_value':
      return issue.values.map((value) => JSON.stringify(value)).join(' or ');
    case 'too_small':
      return `at least ${issue.minimum}`;
    case 'too_big':
      return `at most ${issue.maximum}`;
    default:
      return issue.message;
  }
}

function groupTooSmall(index: number, size: number): PlanError {
  return planError('PLAN_GROUP_TOO_SMALL', 'a group of one is no group', {
    path: `groups[${index}].layers`,
    expected: 'at least two layers',
    found: `${size}`,
    hint: 'Remove the group: layers in no group run one after the other.',
  });
}

function planError(code: PlanErrorCode, message: string, details: PlanErrorDetails): PlanError {
  return new PlanError(code, message, details);
}

function fail(code: PlanErrorCode, message: string, details: PlanErrorDetails): never {
  throw planError(code, message, details);
}

import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { type Plan, PlanError, parsePlan, stringifyPlan, validatePlan } from '@cqil/core';
import type { Anatomy } from '../anatomy/index.js';
import type { Model } from '../onnx/index.js';
import { PLAN_FILE, PLAN_METADATA_KEY } from '../rewrite/index.js';
import type { VerifyCheck } from './types.js';

export interface FoundPlan {
  /** `undefined` where there is none, or none that fits the original. */
  readonly plan: Plan | undefined;
  readonly check: VerifyCheck;
}

/**
 * Finds the plan a model was rewritten by: the one given, or the one in the model's metadata, or `cqil.plan.json`
 * in its folder; and holds it against the original.
 *
 * @param folder of the rewritten model; `undefined` for one that is not on disk
 */
export async function findPlan(
  anatomy: Anatomy,
  rewritten: Model,
  folder: string | undefined,
  given: Plan | undefined,
): Promise<FoundPlan> {
  try {
    const inGraph = rewritten.metadata(PLAN_METADATA_KEY);
    const inFolder = folder === undefined ? undefined : await readOptional(path.join(folder, PLAN_FILE));
    const source = given !== undefined ? 'given' : inGraph !== undefined ? 'in the model' : PLAN_FILE;
    const document = inGraph ?? inFolder;
    if (given === undefined && document === undefined) {
      return failed(
        'PLAN_MISSING',
        `the rewritten model carries no plan, neither in its metadata (${PLAN_METADATA_KEY}) nor as ${PLAN_FILE}`,
      );
    }
    const plan = given ?? parsePlan(document);
    if (given === undefined && inGraph !== undefined && inFolder !== undefined) {
      if (meaning(parsePlan(inFolder)) !== meaning(plan)) {
        return failed('PLAN_AMBIGUOUS', `${PLAN_FILE} is another plan than the one in the model`);
      }
    }
    validatePlan(plan, { layers: anatomy.layers.length, notGroupable: ungroupable(anatomy) });
    const { length } = plan.groups;
    const groups = length === 0 ? 'no groups' : `${length} ${length === 1 ? 'group' : 'groups'}`;
    const detail = `${groups} of ${plan.layers} layers (${source})`;
    return { plan, check: { name: 'plan', status: 'passed', ok: true, detail } };
  } catch (error) {
    if (!(error instanceof PlanError)) throw error;
    return failed(error.code, error.message.replaceAll(/\n\s*/g, '; '));
  }
}

function failed(code: string, detail: string): FoundPlan {
  return { plan: undefined, check: { name: 'plan', status: 'failed', ok: false, code, detail } };
}

/** A plan without its provenance, which changes nothing. */
function meaning(plan: Plan): string {
  return stringifyPlan({ version: plan.version, layers: plan.layers, groups: plan.groups });
}

function ungroupable(anatomy: Anatomy): Map<number, string> {
  return new Map(
    anatomy.layers.flatMap((layer) =>
      layer.ungroupable === undefined ? [] : [[layer.index, layer.ungroupable] as const],
    ),
  );
}

async function readOptional(file: string): Promise<string | undefined> {
  try {
    return await readFile(file, 'utf8');
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
    throw cause;
  }
}

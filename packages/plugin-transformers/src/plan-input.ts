import { readFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Plan, PlanError, parsePlan } from '@cqil/core';
import { PLAN_FILE } from '@cqil/planner';
import { downloadFile, type HubRequest } from './hub-download.js';
import type { ModelPlace } from './place.js';
import type { CqilOptions } from './types.js';

/**
 * The plan that the user's option means.
 *
 * @param place where the model's files are; asked for `auto` only
 * @param hub how to ask a hub for the plan, where the model is not here yet
 * @returns `undefined` for `auto` where there is none
 * @throws PlanError `PLAN_FILE_MISSING`, and what `parsePlan` throws
 */
export async function resolvePlan(
  option: CqilOptions['plan'],
  place: ModelPlace,
  hub: HubRequest | undefined,
): Promise<Plan | undefined> {
  if (option === undefined || option === 'auto') return findPlan(place, hub);
  if (typeof option === 'string') return readPlan(option, option);
  if (option instanceof URL) return readPlan(fileURLToPath(option), option.href);
  return parsePlan(option);
}

async function findPlan(place: ModelPlace, hub: HubRequest | undefined): Promise<Plan | undefined> {
  for (const { dir } of place.folders) {
    const file = join(dir, PLAN_FILE);
    const text = await readIfThere(file);
    if (text !== undefined) return parsePlan(text);
  }
  if (hub === undefined || place.downloads === undefined) return undefined;
  const { dir } = place.downloads;
  if (!(await downloadFile(hub, PLAN_FILE, dir))) return undefined;
  return readPlan(join(dir, PLAN_FILE), PLAN_FILE);
}

async function readPlan(file: string, name: string): Promise<Plan> {
  const text = await readIfThere(file);
  if (text !== undefined) return parsePlan(text);
  throw new PlanError('PLAN_FILE_MISSING', `There is no plan at ${name}.`, {
    expected: `a JSON document as \`cqil plan --out ${basename(file)}\` writes it`,
    found: 'no such file',
    hint: 'check the path, which is taken from the working directory',
  });
}

async function readIfThere(file: string): Promise<string | undefined> {
  try {
    return await readFile(file, 'utf8');
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code ?? '';
    if (['ENOENT', 'ENOTDIR', 'EISDIR'].includes(code)) return undefined;
    throw cause;
  }
}

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type Plan, PlanError, parsePlan, UsageError } from '@cqil/core';
import type { Anatomy, Model, ModelSource } from '@cqil/planner';

/** A model on disk, read as far as its layers. */
export interface OpenedModel {
  readonly source: ModelSource;
  readonly model: Model;
  readonly anatomy: Anatomy;
}

/** Finds, reads and takes apart the model that a command names. The weights stay on disk. */
export async function openModel(path: string, dtype: string | undefined): Promise<OpenedModel> {
  const { analyze } = await import('@cqil/planner');
  const { source, model, plan } = await readNamedModel(path, dtype);
  if (plan === undefined) return { source, model, anatomy: analyze(model) };
  throw new PlanError('MODEL_ALREADY_PLANNED', `${source.onnxFile} has been rewritten by a plan.`, {
    expected: 'the original graph',
    found: `a plan with ${plan.groups.length} groups in its metadata`,
    hint: 'name the folder of the original model',
  });
}

/** Finds and reads the model that a command names, and the plan it was rewritten by, if it was. */
export async function readNamedModel(
  path: string,
  dtype: string | undefined,
): Promise<{ source: ModelSource; model: Model; plan: Plan | undefined }> {
  const { locateModel, PLAN_METADATA_KEY, readModel } = await import('@cqil/planner');
  const source = await locateModel(path, { dtype });
  const model = await readModel(source.onnxFile);
  const own = model.metadata(PLAN_METADATA_KEY);
  const plan = own === undefined ? undefined : parsePlan(own);
  // A plan without groups leaves the graph as it was.
  return { source, model, plan: plan?.groups.length === 0 ? undefined : plan };
}

/** Why layers cannot be grouped, by layer; what plan validation asks for. */
export function refusedLayers({ layers }: Anatomy): Map<number, string> {
  return new Map(
    layers.flatMap(({ index, ungroupable }) =>
      ungroupable === undefined ? [] : [[index, ungroupable] as const],
    ),
  );
}

/** The parsed JSON of a file that the user named. */
export async function readJson(file: string): Promise<unknown> {
  return parseJson(file, await readText(file));
}

/** The text of a file that the user named. */
export async function readText(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8');
  } catch (cause) {
    throw new UsageError('FILE_UNREADABLE', `${file} cannot be read.`, {
      expected: 'a file',
      found: cause instanceof Error ? cause.message : String(cause),
      hint: 'check the path',
      cause,
    });
  }
}

function parseJson(file: string, text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new UsageError('FILE_NOT_JSON', `${file} is not JSON.`, {
      expected: 'a JSON document',
      found: cause instanceof Error ? cause.message : String(cause),
      hint: 'check that it is the right file',
      cause,
    });
  }
}

/** `model_type` as the model's config tells it. */
export async function modelType({ root, layout, sideFiles }: ModelSource): Promise<string | undefined> {
  const name = layout === 'genai' ? 'genai_config.json' : 'config.json';
  if (!sideFiles.includes(name)) return undefined;
  const config = (await readJson(join(root, name))) as {
    model_type?: unknown;
    model?: { type?: unknown };
  } | null;
  const type = layout === 'genai' ? config?.model?.type : config?.model_type;
  return typeof type === 'string' ? type : undefined;
}

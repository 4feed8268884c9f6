import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { VerificationError } from '@cqil/core';
import { type Model, readModel } from '../../onnx/index.js';
import type { ModelSource } from '../../source/index.js';
import { packExternalData } from '../pack-external-data.js';
import { assertFree, writeModelFolder } from '../write-folder.js';
import { fuse, quantisedCopy } from './fuse.js';
import { checkFused, type FuseParity } from './parity.js';
import type { FuseOptions, FusePassReport, FuseResult } from './types.js';

/** The name under which a fused folder holds what was done to its graph. */
export const FUSE_FILE = 'cqil.fuse.json';

export interface FuseModelOptions extends FuseOptions {
  /** Replaces what is in `outDir`, if that is a folder this function wrote. */
  readonly force?: boolean;
  /** Runs both graphs on the same tokens before the folder is kept; `true` when absent. */
  readonly check?: boolean;
  /** Models with more bytes of weights are not run; 2 GB when absent. */
  readonly checkLimit?: number;
}

export interface FusedModel {
  /** The folder, absolute. */
  readonly root: string;
  readonly onnxFile: string;
  readonly nodes: { readonly before: number; readonly after: number };
  readonly passes: readonly FusePassReport[];
  readonly notes: readonly string[];
  /** What the runs of both graphs gave; none where they were not run. */
  readonly checks: readonly FuseParity[];
}

/** What fits a protobuf message, and leaves room in the memory of small machines. */
const CHECK_LIMIT = 2 ** 31;

/**
 * Fuses a model on disk into a folder of its own, laid out as the source is: the graph and its data under their old
 * names, all side files, and what was done as `cqil.fuse.json`. The folder appears at once, complete and checked, or not
 * at all.
 *
 * The fused graph is held to the source's logits and caches; with `bits` the graph before quantising is, and the
 * quantised one is held to the graph with the numbers that its blocks stand for.
 *
 * @throws UsageError `OUTPUT_NOT_EMPTY`, `OUTPUT_IS_SOURCE`; VerificationError `FUSE_BROKEN`; AnatomyError,
 *   ModelFormatError; EnvironmentError `WRITE_FAILED`; the signal's reason
 */
export async function fuseModel(
  source: ModelSource,
  outDir: string,
  options: FuseModelOptions = {},
): Promise<FusedModel> {
  const root = path.resolve(outDir);
  await assertFree(root, source, options.force === true ? FUSE_FILE : undefined);
  const original = await readModel(source.onnxFile);
  const { bits, ...settings } = await withPositions(source, options);
  const float = await fuse(original, settings);
  const result = bits === undefined ? float : await quantised(float, { ...settings, bits });
  const { model } = result;
  const passes = result.passes;
  const nodes = { before: original.graph.nodes.length, after: model.graph.nodes.length };
  packExternalData(model, original);
  const checks: FuseParity[] = [];
  const notes = [...result.notes];
  const limit = options.checkLimit ?? CHECK_LIMIT;
  const wanted = options.check !== false;
  if (wanted && weightBytes(original) > limit)
    notes.push('The model is too large to be run for a check here.');
  const check = async (written: Model) => {
    checks.push(await checkFused(original, bits === undefined ? written : float.model, settings));
    if (bits !== undefined) {
      const { model: meant } = await quantisedCopy(float.model, { ...settings, bits }, 'values');
      checks.push(await checkFused(meant, written, settings));
    }
    const wrong = checks.filter(({ ok }) => !ok).map(({ detail }) => detail);
    return wrong.length === 0 ? undefined : wrong.join('; ');
  };
  const { signal, onProgress } = options;
  await writeModelFolder(source, model, root, {
    document: { file: FUSE_FILE, text: `${JSON.stringify({ version: 1, bits, passes, notes }, null, 2)}\n` },
    ...(wanted && weightBytes(original) <= limit ? { check } : {}),
    broken: (found) =>
      new VerificationError('FUSE_BROKEN', 'The fused model failed its check and was not kept.', {
        expected: "the original's logits and caches",
        found,
        hint: 'This is a fault of this program; leave out a pass, and please report it.',
      }),
    ...(signal === undefined ? {} : { signal }),
    ...(onProgress === undefined ? {} : { onProgress }),
  });
  return { root, onnxFile: path.join(root, source.onnxRelative), nodes, passes, notes, checks };
}

async function quantised(float: FuseResult, options: FuseOptions): Promise<FuseResult> {
  const { model, report } = await quantisedCopy(float.model, options, 'blocks');
  return { model, passes: [...float.passes, report], notes: float.notes };
}

/** As many positions as the model was trained for, where its config says so. */
async function withPositions(source: ModelSource, options: FuseModelOptions): Promise<FuseOptions> {
  const positions = options.maxPositions ?? (await configuredPositions(source));
  return positions === undefined ? options : { ...options, maxPositions: positions };
}

async function configuredPositions({ root, layout, sideFiles }: ModelSource): Promise<number | undefined> {
  const file = layout === 'genai' ? 'genai_config.json' : 'config.json';
  if (!sideFiles.includes(file)) return undefined;
  const config = JSON.parse(await readFile(path.join(root, file), 'utf8')) as Record<string, unknown>;
  const model = config.model as Record<string, unknown> | undefined;
  const found = [config.max_position_embeddings, config.n_positions, model?.context_length].find(
    (value) => typeof value === 'number' && Number.isInteger(value) && value > 0,
  );
  return found as number | undefined;
}

function weightBytes(model: Model): number {
  let sum = 0;
  for (const tensor of model.graph.initializers.values()) sum += tensor.byteLength;
  return sum;
}

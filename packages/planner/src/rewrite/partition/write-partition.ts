import { randomBytes } from 'node:crypto';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { CqilError, EnvironmentError, type OnProgress, UsageError, VerificationError } from '@cqil/core';
import { PARTITION_FILE, type PartitionManifest, type SessionOptions } from '@cqil/runtime-gpu';
import { readModel, writeModel } from '../../onnx/index.js';
import type { ModelSource } from '../../source/index.js';
import { assertFree, copySideFiles, moveIntoPlace } from '../write-folder.js';
import { cutParts } from './cut-parts.js';
import { layOut } from './layout.js';
import { type PartitionParity, partitionParity } from './parity.js';
import { WeightReferences } from './reference-weights.js';

export interface PartitionOptions {
  /** `cpu:0`, `cpu:1`, …: branch k of each group runs on the k-th, counted round. */
  readonly devices: readonly string[];
  /**
   * Whether layers in no group and the head run on the threads of all devices, which have nothing else to do meanwhile;
   * `true` when absent. Else on the first device alone.
   */
  readonly spread?: boolean;
  /** Replaces what is in the folder, if that is a partition. */
  readonly force?: boolean;
  /** Runs the partition and the whole graph and compares them before the folder is kept; `true` when absent. */
  readonly check?: boolean;
  readonly session?: SessionOptions;
  readonly signal?: AbortSignal;
  readonly onProgress?: OnProgress;
}

/** Side files that would send a reader to a graph that is not there. */
const NAMING_THE_GRAPH: ReadonlySet<string> = new Set(['genai_config.json', PARTITION_FILE]);

export interface WrittenPartition {
  /** The folder, absolute. */
  readonly root: string;
  readonly manifest: PartitionManifest;
  /** `undefined` where it was not checked. */
  readonly parity: PartitionParity | undefined;
}

/**
 * Cuts a planned model into graphs for several devices (CQIL, arXiv 2404.06709: the layers of a group at the same time
 * on different devices), written into a folder with a manifest: `openPartitioned` of `@cqil/runtime-gpu` runs it.
 *
 * The folder has the model's side files (config, tokenizer, plan), so that whatever opens model folders by them opens it, too.
 * Weights stay in the model's own files, which the parts refer to by offset; those that ONNX Runtime cannot map from
 * there (badly aligned inside an .onnx file) and small ones are copied into the parts. The folder appears at once, complete and checked,
 * or not at all.
 *
 * @throws PlanError `MODEL_NOT_PLANNED`; AnatomyError `PARTITION_JOINT`, `PARTITION_VALUE_TYPE`; UsageError
 *   `DEVICES_INVALID`, `OUTPUT_IS_SOURCE`, `OUTPUT_NOT_EMPTY`; VerificationError `PARTITION_BROKEN`; EnvironmentError
 *   `WRITE_FAILED`; ModelFormatError; the signal's reason
 */
export async function partitionModel(
  source: ModelSource,
  outDir: string,
  options: PartitionOptions,
): Promise<WrittenPartition> {
  const { devices, spread = true, signal } = options;
  checkDevices(devices);
  const root = path.resolve(outDir);
  await assertFree(root, source, options.force === true ? PARTITION_FILE : undefined);
  const model = await readModel(source.onnxFile);
  const layout = layOut(model, { devices, spread });
  const cut = await cutParts(model, layout, options.session ?? {});
  signal?.throwIfAborted();

  const staged = `${root}.${process.pid}-${randomBytes(4).toString('hex')}.tmp`;
  try {
    await mkdir(staged, { recursive: true });
    const references = await WeightReferences.of(model);
    for (const [done, { part, model: graph }] of cut.parts.entries()) {
      signal?.throwIfAborted();
      options.onProgress?.({ phase: 'cut', done, total: cut.parts.length });
      await writeModel(references.apply(graph), path.join(staged, fileOf(part.name)), { external: 'inline' });
    }
    const { folder, files } = await references.used();
    const manifest: PartitionManifest = {
      version: 1,
      model: relativeTo(root, source.onnxFile),
      weights: { folder: relativeTo(root, folder), files: [...files] },
      devices: [...devices],
      inputs: model.graph.feeds.map(({ name }) => name),
      outputs: model.graph.outputs.map(({ name }) => name),
      parts: cut.parts.map(({ part }) => ({ ...part, file: fileOf(part.name) })),
      shapes: Object.fromEntries(Object.entries(cut.shapes).map(([name, shape]) => [name, [...shape]])),
      groups: layout.groups.map(({ layers, bypass, exchanges }) => ({
        layers: [...layers],
        bypass,
        exchanges,
      })),
    };
    await copySideFiles(source, staged, NAMING_THE_GRAPH, signal);
    await writeFile(path.join(staged, PARTITION_FILE), `${JSON.stringify(manifest, null, 2)}\n`);
    const parity =
      options.check === false
        ? undefined
        : await partitionParity(model, source.onnxFile, staged, {
            session: options.session ?? {},
            signal,
          });
    if (parity !== undefined && !parity.ok) throw notTheSame(parity);
    signal?.throwIfAborted();
    await moveIntoPlace(staged, root);
    return { root, manifest, parity };
  } catch (cause) {
    await rm(staged, { recursive: true, force: true });
    throw asWriteError(cause, root);
  }
}

function checkDevices(devices: readonly string[]): void {
  const wrong = devices.find((device, i) => !/^cpu:\d+$/.test(device) || devices.indexOf(device) !== i);
  if (devices.length >= 2 && wrong === undefined) return;
  throw new UsageError('DEVICES_INVALID', 'The branches of a group cannot be put on these devices.', {
    expected: 'two devices or more, each once: cpu:0, cpu:1, …',
    found: wrong ?? (devices.join(', ') || 'none'),
  });
}

function fileOf(part: string): string {
  return `parts/${part}.onnx`;
}

function relativeTo(root: string, target: string): string {
  return path.relative(root, target).split(path.sep).join('/') || '.';
}

function notTheSame(parity: PartitionParity): VerificationError {
  return new VerificationError('PARTITION_BROKEN', 'The partition failed its check and was not kept.', {
    expected: `the whole graph's logits to ${parity.limit.toPrecision(2)}`,
    found: `a difference of ${parity.largest.toPrecision(3)} (${parity.worst})`,
    hint: 'This is a fault of this program; please report it with the output of `cqil inspect --json`.',
  });
}

function asWriteError(cause: unknown, root: string): unknown {
  if (cause instanceof CqilError || !(cause instanceof Error) || !('syscall' in cause)) return cause;
  return new EnvironmentError('WRITE_FAILED', `Could not write ${root}: ${cause.message}`, {
    hint:
      (cause as NodeJS.ErrnoException).code === 'ENOSPC'
        ? 'Make room on the disk.'
        : 'Check that the folder can be written.',
    cause,
  });
}

import { readFile, stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { DecoderSession, type ForwardRequest, type ForwardResult } from '../decoder/decoder.js';
import type { StepModel } from '../decoder/step-model.js';
import { InferenceError } from '../errors.js';
import { loadLibrary, type OrtLibrary } from '../session/native/library.js';
import type { SessionOptions } from '../session/types.js';
import type { DecoderSignature } from '../signature/signature.js';
import { PARTITION_FILE, type PartitionManifest, type PartitionPart, readManifest } from './manifest.js';
import { PartSession } from './part-session.js';
import { PartitionedSession } from './partitioned-session.js';
import { allowedProcessors, processorsOf } from './processors.js';
import type { MakeTransport } from './team.js';
import type { ChromeTrace, ExchangeTime } from './timeline.js';
import { AsyncTransport } from './transport/async.js';
import type { Fault } from './transport/types.js';
import { WorkersTransport } from './transport/workers.js';

export interface OpenPartitionedOptions {
  /**
   * How devices work together. `workers` (when absent): a thread each, which wait for each other in shared memory.
   * `async`: calls off the main thread, which starts each; slower, and without threads of its own.
   */
  readonly transport?: 'workers' | 'async';
  /** Milliseconds that a step may take before it is given up; without end when absent. */
  readonly deadlineMs?: number;
  /**
   * Bytes that caches may have together; a step that needs more is refused with `EXECUTOR_OUT_OF_MEMORY`. Without end when
   * absent.
   */
  readonly cacheBytes?: number;
  /** Keeps when each part waited and ran; see `PartitionedModel.trace`. */
  readonly trace?: boolean;
  /** Keeps the thread of `cpu:k` on the k-th processor, where the platform can (Linux); `true` when absent. */
  readonly pin?: boolean;
  /** Milliseconds that a thread looks for what it waits for before it sleeps. */
  readonly spinMs?: number;
  /** For all parts; `threads` is up to the partition. */
  readonly session?: Pick<SessionOptions, 'graphOptimization' | 'config' | 'log'>;
  /** Made up, for tests of what happens then. */
  readonly fault?: Fault;
}

const TRANSPORTS: Readonly<Record<'workers' | 'async', MakeTransport>> = {
  workers: (setup) => new WorkersTransport(setup),
  async: (setup) => new AsyncTransport(setup),
};

/** Longer than one branch waits for another, shorter than a layer in no group takes. */
const SPIN_MS = 0.2;

/** A planned model whose groups run on several devices at once. */
export class PartitionedModel implements StepModel {
  readonly manifest: PartitionManifest;
  /** The model as a decoder, for everything that takes one. */
  readonly decoder: DecoderSession;
  readonly #session: PartitionedSession;

  constructor(manifest: PartitionManifest, session: PartitionedSession) {
    this.manifest = manifest;
    this.#session = session;
    this.decoder = new DecoderSession(session);
  }

  get signature(): DecoderSignature {
    return this.decoder.signature;
  }

  /**
   * As `DecoderSession.forward`.
   *
   * @throws InferenceError `EXECUTOR_DEADLINE` (a step took longer than `deadlineMs`), `EXECUTOR_DEVICE_LOST` (a
   *   device's thread ended), `EXECUTOR_MEMORY_HELD` (the cache of such a step is still written to),
   *   `EXECUTOR_OUT_OF_MEMORY` (caches would take more than `cacheBytes`) besides; other steps and caches are as they
   *   were, and the next step works
   */
  forward(request: ForwardRequest): Promise<ForwardResult> {
    return this.decoder.forward(request);
  }

  /** What the devices did since the last call, for `chrome://tracing` and Perfetto; empty without `trace: true`. */
  trace(): ChromeTrace {
    return this.#session.timeline.trace();
  }

  /** Every exchange of the steps in `trace`. */
  exchanges(): ExchangeTime[] {
    return this.#session.timeline.exchanges();
  }

  /** Forgets what was traced so far. */
  clearTrace(): void {
    this.#session.timeline.clear();
  }

  /** Ends all threads and frees all parts, after the steps that were asked for. */
  dispose(): Promise<void> {
    return this.decoder.dispose();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }
}

/**
 * Opens a model that `cqil partition` cut: one session of ONNX Runtime for each part.
 *
 * @param dir the partition's folder
 * @throws InferenceError `PARTITION_NOT_FOUND`, `PARTITION_INVALID`, `PARTITION_STALE` (the model's weights moved or
 *   changed), `PROVIDER_UNAVAILABLE`, `MODEL_LOAD_FAILED`, `NOT_A_DECODER`, `ORT_LIBRARY_UNUSABLE`,
 *   `EXECUTOR_DEVICE_LOST`
 * @example
 * ```ts
 * const model = await openPartitioned('models/smollm2-two');
 * const { ids } = await generate(model, { promptIds: [1, 42, 7], maxTokens: 20 });
 * await model.dispose();
 * ```
 */
export async function openPartitioned(
  dir: string,
  options: OpenPartitionedOptions = {},
): Promise<PartitionedModel> {
  const folder = resolve(dir);
  const manifest = await manifestIn(folder);
  const weights = resolve(folder, manifest.weights.folder);
  await checkWeights(manifest, weights);
  const elsewhere = manifest.devices.find((device) => !device.startsWith('cpu:'));
  if (elsewhere !== undefined) {
    throw new InferenceError('PROVIDER_UNAVAILABLE', `Parts cannot be run on ${elsewhere}.`, {
      expected: 'cpu:0, cpu:1, …',
      found: elsewhere,
    });
  }
  const library = await loadLibrary();
  const allowed = options.pin === false ? [] : allowedProcessors(library);
  const sessions = await openParts(library, folder, manifest, (part) =>
    sessionOptions(part, weights, allowed, options),
  );
  const session = new PartitionedSession(library, manifest, sessions, {
    model: dir,
    makeTransport: TRANSPORTS[options.transport ?? 'workers'],
    processors: processorsOf(manifest.devices, allowed),
    spinMs: options.spinMs ?? SPIN_MS,
    trace: options.trace ?? false,
    ...(options.fault === undefined ? {} : { fault: options.fault }),
  });
  try {
    const model = new PartitionedModel(manifest, session);
    await session.ready();
    // Tried out before anything is timed: a step that was given up then would pass for one that copies its caches.
    await model.decoder.inPlaceSteps();
    session.begin(options);
    return model;
  } catch (error) {
    await session.dispose();
    throw error;
  }
}

/** Whether a folder is one that `cqil partition` wrote. */
export async function isPartition(dir: string): Promise<boolean> {
  return stat(join(dir, PARTITION_FILE)).then(
    (found) => found.isFile(),
    () => false,
  );
}

async function openParts(
  library: OrtLibrary,
  folder: string,
  manifest: PartitionManifest,
  optionsOf: (part: PartitionPart) => SessionOptions,
): Promise<PartSession[]> {
  const sessions: PartSession[] = [];
  try {
    for (const part of manifest.parts) {
      const label = `part "${part.name}" of ${folder}`;
      const session = await PartSession.open(library, label, await bytesOf(folder, part), optionsOf(part));
      sessions.push(session);
      checkBorder(part, session, folder);
    }
    return sessions;
  } catch (error) {
    for (const session of sessions) session.release();
    throw error;
  }
}

async function manifestIn(folder: string): Promise<PartitionManifest> {
  const file = join(folder, PARTITION_FILE);
  const text = await readFile(file, 'utf8').catch((cause: Error) => {
    throw new InferenceError('PARTITION_NOT_FOUND', `There is no partition in ${folder}.`, {
      expected: `a folder with a ${PARTITION_FILE}`,
      found: cause.message,
      hint: 'Write one with `cqil partition <model> --devices cpu:0,cpu:1 --out <folder>`.',
      cause,
    });
  });
  let document: unknown;
  try {
    document = JSON.parse(text);
  } catch (cause) {
    throw invalid(folder, cause instanceof Error ? cause.message : String(cause));
  }
  const read = readManifest(document);
  if ('wrong' in read) throw invalid(folder, read.wrong);
  return read.manifest;
}

/** Parts refer to places in the model's files: other content there would be other weights, without an error. */
async function checkWeights({ weights, model }: PartitionManifest, folder: string): Promise<void> {
  for (const { path, bytes } of weights.files) {
    const file = join(folder, path);
    const found = await stat(file).catch(() => undefined);
    if (found?.size === bytes) continue;
    throw new InferenceError(
      'PARTITION_STALE',
      `The weights that the partition of ${model} refers to changed.`,
      {
        expected: `${bytes} bytes in ${file}`,
        found: found === undefined ? 'no such file' : `${found.size} bytes`,
        hint: 'Cut the model again, and keep its folder where it is, as seen from the partition.',
      },
    );
  }
}

async function bytesOf(folder: string, part: PartitionPart): Promise<Uint8Array> {
  try {
    return await readFile(join(folder, part.file));
  } catch (cause) {
    throw invalid(folder, `part "${part.name}": ${cause instanceof Error ? cause.message : String(cause)}`);
  }
}

function checkBorder(part: PartitionPart, { inputs, outputs }: PartSession, folder: string): void {
  const same = (a: readonly { name: string }[], b: readonly string[]) =>
    a
      .map(({ name }) => name)
      .sort()
      .join('\0') === [...b].sort().join('\0');
  const names = part.inputs.map(({ name }) => name);
  if (same(inputs, names) && same(outputs, part.outputs)) return;
  throw invalid(
    folder,
    `the graph of part "${part.name}" has other inputs or outputs than it is listed with`,
  );
}

function invalid(folder: string, found: string): InferenceError {
  return new InferenceError('PARTITION_INVALID', `The partition in ${folder} cannot be used.`, {
    expected: 'what `cqil partition` wrote',
    found,
    hint: 'Cut the model again.',
  });
}

/**
 * A part on one device is one thread: the caller's. One on several takes the others' processors as well, and gives them
 * back at the end of each run: its threads must not look for work while branches run there.
 */
function sessionOptions(
  { devices }: PartitionPart,
  weights: string,
  allowed: readonly number[],
  { session = {} }: OpenPartitionedOptions,
): SessionOptions {
  const others = processorsOf(devices, allowed).slice(1);
  const config: Record<string, string> = {};
  if (devices.length > 1) {
    config['session.force_spinning_stop'] = '1';
    if (!others.includes(undefined)) {
      // Counted from 1.
      config['session.intra_op_thread_affinities'] = others.map((k) => k! + 1).join(';');
    }
  }
  return {
    ...session,
    threads: devices.length,
    externalDataFolder: weights,
    config: { ...config, ...session.config },
  };
}

import { stat } from 'node:fs/promises';
import { resolve } from 'node:path';
import { InferenceSession, type Tensor } from 'onnxruntime-node';
import { InferenceError } from '../errors.js';
import type { ElementType, TensorValue } from '../tensor/types.js';
import { checkFeeds, checkFetches } from './checks.js';
import { loadError, runError } from './ort-errors.js';
import { fromOrt, toOrt } from './ort-tensor.js';
import { keepQuiet } from './telemetry.js';
import type { Session, SessionOptions, ValueInfo } from './types.js';

/**
 * Loads a model into ONNX Runtime.
 *
 * @param model path of an `.onnx` file, or the bytes of one
 * @throws InferenceError `MODEL_NOT_FOUND`, `MODEL_LOAD_FAILED`, `PROVIDER_UNAVAILABLE`
 * @example
 * ```ts
 * const session = await openSession('model.onnx', { threads: 2 });
 * const { y } = await session.run({ x: { type: 'float32', dims: [2], data: Float32Array.of(1, 2) } });
 * await session.dispose();
 * ```
 */
export async function openSession(
  model: string | Uint8Array,
  options: SessionOptions = {},
): Promise<Session> {
  const label = typeof model === 'string' ? model : 'model in memory';
  if (typeof model === 'string') await requireFile(model);
  const settings = ortOptions(options);
  keepQuiet();
  try {
    const session =
      typeof model === 'string'
        ? await InferenceSession.create(resolve(model), settings)
        : await InferenceSession.create(model, settings);
    return new OrtSession(label, session);
  } catch (error) {
    throw loadError(label, error);
  }
}

async function requireFile(file: string): Promise<void> {
  const found = await stat(file).catch(() => undefined);
  if (found?.isFile()) return;
  throw new InferenceError('MODEL_NOT_FOUND', `There is no model at ${file}.`, {
    expected: 'an .onnx file',
    found: found === undefined ? 'nothing' : 'a folder',
    hint: 'Give the path of the .onnx file itself.',
  });
}

const LOG_LEVELS = { silent: 4, warning: 2, verbose: 0 } as const;

function ortOptions(options: SessionOptions): InferenceSession.SessionOptions {
  const extra: Record<string, string> = { ...options.config };
  if (options.externalDataFolder !== undefined) {
    extra['session.model_external_initializers_file_folder_path'] = resolve(options.externalDataFolder);
  }
  return {
    executionProviders: [...(options.providers ?? ['cpu'])],
    graphOptimizationLevel: options.graphOptimization ?? 'all',
    logSeverityLevel: LOG_LEVELS[options.log ?? 'silent'],
    ...(options.threads === undefined ? {} : { intraOpNumThreads: options.threads }),
    ...(Object.keys(extra).length === 0 ? {} : { extra }),
  };
}

class OrtSession implements Session {
  readonly model: string;
  readonly inputs: readonly ValueInfo[];
  readonly outputs: readonly ValueInfo[];
  #session: InferenceSession | undefined;
  #running = new Set<Promise<unknown>>();
  #released: Promise<void> | undefined;

  constructor(model: string, session: InferenceSession) {
    this.model = model;
    this.#session = session;
    this.inputs = session.inputMetadata.map(valueInfo);
    this.outputs = session.outputMetadata.map(valueInfo);
  }

  async run(
    feeds: Readonly<Record<string, TensorValue>>,
    fetches: readonly string[] = this.outputs.map((output) => output.name),
  ): Promise<Record<string, TensorValue>> {
    const session = this.#session;
    if (session === undefined) {
      throw new InferenceError('SESSION_DISPOSED', `The session of ${this.model} was disposed.`, {
        hint: 'Open the model again.',
      });
    }
    checkFeeds(this.inputs, feeds);
    checkFetches(this.outputs, fetches);
    const ortFeeds: Record<string, Tensor> = {};
    for (const [name, value] of Object.entries(feeds)) ortFeeds[name] = toOrt(name, value);
    const run = session.run(ortFeeds, fetches, { logSeverityLevel: 4 });
    this.#running.add(run);
    try {
      const results = await run;
      return Object.fromEntries(fetches.map((name) => [name, fromOrt(results[name] as Tensor)]));
    } catch (error) {
      throw runError(this.model, error);
    } finally {
      this.#running.delete(run);
    }
  }

  dispose(): Promise<void> {
    const session = this.#session;
    this.#session = undefined;
    this.#released ??= Promise.allSettled(this.#running).then(() => session?.release());
    return this.#released;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }
}

function valueInfo(metadata: InferenceSession.ValueMetadata): ValueInfo {
  if (!metadata.isTensor) {
    throw new InferenceError('MODEL_LOAD_FAILED', `"${metadata.name}" is no tensor.`, {
      expected: 'tensors as inputs and outputs',
      hint: 'Models with sequences or maps as inputs or outputs cannot be run.',
    });
  }
  return { name: metadata.name, elementType: metadata.type as ElementType, shape: metadata.shape };
}

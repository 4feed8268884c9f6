import { InferenceSession, type Tensor } from 'onnxruntime-node';
import { InferenceError } from '../errors.js';
import type { ElementType, TensorValue } from '../tensor/types.js';
import { checkFeeds, checkFetches } from './checks.js';
import { configEntries } from './config.js';
import { runError } from './ort-errors.js';
import { fromOrt, toOrt } from './ort-tensor.js';
import type { RunOptions, Session, SessionOptions, ValueInfo } from './types.js';

const LOG_LEVELS = { silent: 4, warning: 2, verbose: 0 } as const;

function ortOptions(options: SessionOptions): InferenceSession.SessionOptions {
  const extra = configEntries(options);
  return {
    executionProviders: [...(options.providers ?? ['cpu'])],
    graphOptimizationLevel: options.graphOptimization ?? 'all',
    logSeverityLevel: LOG_LEVELS[options.log ?? 'silent'],
    ...(options.threads === undefined ? {} : { intraOpNumThreads: options.threads }),
    ...(Object.keys(extra).length === 0 ? {} : { extra }),
  };
}

/** A loaded model, reached through onnxruntime-node: it computes on the thread that calls, and copies what it hands out. */
export class NodeSession implements Session {
  readonly binding = 'node';
  readonly model: string;
  readonly inputs: readonly ValueInfo[];
  readonly outputs: readonly ValueInfo[];
  #session: InferenceSession | undefined;
  #running = new Set<Promise<unknown>>();
  #released: Promise<void> | undefined;

  private constructor(model: string, session: InferenceSession) {
    this.model = model;
    this.#session = session;
    this.inputs = session.inputMetadata.map(valueInfo);
    this.outputs = session.outputMetadata.map(valueInfo);
  }

  /**
   * @param model absolute path of an `.onnx` file, or the bytes of one
   * @throws what onnxruntime-node throws; InferenceError `MODEL_LOAD_FAILED` for values that are no tensors
   */
  static async open(
    label: string,
    model: string | Uint8Array,
    options: SessionOptions,
  ): Promise<NodeSession> {
    const settings = ortOptions(options);
    const session =
      typeof model === 'string'
        ? await InferenceSession.create(model, settings)
        : await InferenceSession.create(model, settings);
    return new NodeSession(label, session);
  }

  async run(
    feeds: Readonly<Record<string, TensorValue>>,
    fetches: readonly string[] = this.outputs.map((output) => output.name),
    options: RunOptions = {},
  ): Promise<Record<string, TensorValue>> {
    options.signal?.throwIfAborted();
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

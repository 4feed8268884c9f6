import { stat } from 'node:fs/promises';
import { resolve } from 'node:path';
import { InferenceError } from '../errors.js';
import { isUnusable, loadLibrary } from './native/library.js';
import { ORT_LIBRARY_VARIABLE } from './native/library-file.js';
import { NativeSession } from './native/native-session.js';
import { NodeSession } from './node-session.js';
import { loadError } from './ort-errors.js';
import { keepQuiet } from './telemetry.js';
import type { Session, SessionOptions } from './types.js';

/**
 * Loads a model into ONNX Runtime: through its C API, where that can be had (`Session.binding` says so).
 *
 * Execution providers other than `cpu`, and models that take or give strings, go through onnxruntime-node.
 *
 * @param model path of an `.onnx` file, or the bytes of one
 * @throws InferenceError `MODEL_NOT_FOUND`, `MODEL_LOAD_FAILED`, `PROVIDER_UNAVAILABLE`; `ORT_LIBRARY_UNUSABLE` when
 *   `binding: 'native'` was asked for or `CQIL_ORT_LIBRARY` names a library, and it cannot be used
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
  const target = typeof model === 'string' ? resolve(model) : model;
  const native = await openNative(label, target, options);
  if (native !== undefined) return native;
  keepQuiet();
  try {
    return await NodeSession.open(label, target, options);
  } catch (error) {
    throw loadError(label, error);
  }
}

/** `undefined` where the model is to go through onnxruntime-node. */
async function openNative(
  label: string,
  model: string | Uint8Array,
  options: SessionOptions,
): Promise<NativeSession | undefined> {
  const { binding, providers = ['cpu'] } = options;
  if (binding === 'node' || providers.some((provider) => provider !== 'cpu')) return undefined;
  let library: Awaited<ReturnType<typeof loadLibrary>>;
  try {
    library = await loadLibrary();
  } catch (error) {
    if (!isUnusable(error) || binding === 'native' || process.env[ORT_LIBRARY_VARIABLE]) throw error;
    sayOnce(error);
    return undefined;
  }
  try {
    return await NativeSession.open(library, label, model, options);
  } catch (error) {
    throw loadError(label, error);
  }
}

let said = false;

/** Slower and on the main thread, but right: worth one line in the log, not an error. */
function sayOnce(error: InferenceError): void {
  if (said) return;
  said = true;
  process.emitWarning(`ONNX Runtime is used through onnxruntime-node: ${error.message} (${error.found})`, {
    code: 'CQIL_BINDING',
  });
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

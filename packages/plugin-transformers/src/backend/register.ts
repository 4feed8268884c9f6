import { AsyncLocalStorage } from 'node:async_hooks';
import { totalmem } from 'node:os';
import { CqilError, UsageError } from '@cqil/core';
import { NativeSession, openSession } from '@cqil/runtime-gpu';
import { PrefixStore } from './decoder/prefix-store.js';
import { type HandlerOptions, NativeHandler } from './handler.js';
import { findInstallations, type Installation, usualPlaces } from './installations.js';
import type { OrtBackend, OrtHandler } from './ort.js';
import { nativeOptions } from './session-options.js';

/** How the backend is to work. */
export interface BackendOptions {
  /**
   * Bytes of keys and values that are kept of earlier prompts, so that one that begins the same way is not computed from
   * its start; `false` keeps none. A sixteenth of the machine's memory, and 512 MiB at most, when absent.
   */
  readonly prefixCache?: number | false;
  /**
   * A file or folder of the program that imports Transformers.js; this package, the main script and the current folder
   * are searched when absent.
   */
  readonly from?: string | URL;
}

/** A backend that is in use. */
export interface RegisteredBackend {
  /** Models that it has taken over since it was registered, those disposed since included. */
  readonly sessions: number;
  /** Lets go of what is kept of earlier prompts. */
  clearPrefixes(): void;
  /** Models that are loaded from now on are again onnxruntime-node's own. Those that are loaded stay as they are. */
  unregister(): void;
}

/** Where Transformers.js looks for an ONNX Runtime of the host's before it takes onnxruntime-node. */
const HOST_RUNTIME = Symbol.for('onnxruntime');
/** Marks the backends that are taken over. By its key, since a program may have two copies of this package. */
const TAKEN_OVER = Symbol.for('@cqil/plugin-transformers.backend');

type TakenOver = OrtBackend & { [TAKEN_OVER]?: () => void };

/** Set while a model is opened by this package: what onnxruntime-node is asked for then, it does itself. */
const opening = new AsyncLocalStorage<true>();

/**
 * Makes Transformers.js run its models on this package's runtime: the cache of a decoder stays where it is, and nothing
 * computes on the main thread. Programs stay as they are; models that are loaded from now on are faster.
 *
 * It may be called before or after Transformers.js is imported, and again, with other options. What the runtime does not
 * do goes to onnxruntime-node as before: other devices, strings, sequences, external data in memory.
 *
 * onnxruntime-node registers one object for every device that it knows. That object gets another way to open models;
 * registering a backend of one's own would work only before onnxruntime-node is loaded, since in ONNX Runtime's registry
 * a later one does not replace an earlier one.
 *
 * @throws EnvironmentError `TRANSFORMERS_NOT_FOUND`; UsageError `TRANSFORMERS_UNSUPPORTED`, `BACKEND_BYPASSED` where
 *   Transformers.js takes another ONNX Runtime than onnxruntime-node
 * @example
 * import '@cqil/plugin-transformers/register';
 * import { pipeline } from '@huggingface/transformers';
 */
export function registerBackend(options: BackendOptions = {}): RegisteredBackend {
  assertNotBypassed();
  const places = options.from === undefined ? usualPlaces() : [String(options.from)];
  const installations = findInstallations(places);
  const prefixes = prefixStore(options.prefixCache);
  let sessions = 0;
  const undo = installations.map((installation) =>
    takeOver(installation, { prefixes, onOpen: () => sessions++ }),
  );
  return {
    get sessions() {
      return sessions;
    },
    clearPrefixes: () => prefixes?.clear(),
    unregister: () => {
      for (const one of undo) one();
      prefixes?.clear();
    },
  };
}

function assertNotBypassed(): void {
  if (!(HOST_RUNTIME in globalThis)) return;
  throw new UsageError('BACKEND_BYPASSED', 'Transformers.js would not use the backend.', {
    expected: 'Transformers.js on onnxruntime-node',
    found: "globalThis[Symbol.for('onnxruntime')], which it takes instead",
    hint: 'remove that before Transformers.js is imported',
  });
}

function prefixStore(limit: number | false | undefined): PrefixStore | undefined {
  if (limit === false || limit === 0) return undefined;
  if (limit !== undefined && !(limit > 0)) {
    throw new UsageError('BACKEND_OPTION', 'The prefix cache cannot have that size.', {
      expected: 'a number of bytes, or false',
      found: String(limit),
    });
  }
  return new PrefixStore(limit ?? Math.min(2 ** 29, totalmem() / 16));
}

interface Hooks extends Pick<HandlerOptions, 'prefixes'> {
  readonly onOpen: () => void;
}

/** @returns what gives the backend back its own ways */
function takeOver({ backend, Tensor, transformers }: Installation, hooks: Hooks): () => void {
  const target = backend as TakenOver;
  target[TAKEN_OVER]?.();
  const own = Object.getOwnPropertyDescriptor(target, 'createInferenceSessionHandler');
  const original = target.createInferenceSessionHandler.bind(target);
  const handlerOptions = { Tensor, transformers, prefixes: hooks.prefixes };

  const create: OrtBackend['createInferenceSessionHandler'] = async (model, options = {}) => {
    const handler = opening.getStore() ? undefined : await openNative(model, options, handlerOptions);
    if (handler === undefined) return original(model, options);
    hooks.onOpen();
    return handler;
  };
  const undo = () => {
    if (target.createInferenceSessionHandler !== create) return;
    if (own === undefined) Reflect.deleteProperty(target, 'createInferenceSessionHandler');
    else Object.defineProperty(target, 'createInferenceSessionHandler', own);
    Reflect.deleteProperty(target, TAKEN_OVER);
  };
  target.createInferenceSessionHandler = create;
  target[TAKEN_OVER] = undo;
  return undo;
}

/** `undefined` for what onnxruntime-node is to open; it also says best what is wrong with a model. */
async function openNative(
  model: string | Uint8Array,
  options: NonNullable<Parameters<OrtBackend['createInferenceSessionHandler']>[1]>,
  handlerOptions: HandlerOptions,
): Promise<OrtHandler | undefined> {
  const native = nativeOptions(options);
  if (native === undefined) return undefined;
  try {
    const session = await opening.run(true, () => openSession(model, { ...native, binding: 'native' }));
    if (session instanceof NativeSession) return await NativeHandler.of(session, handlerOptions);
    await session.dispose();
  } catch (error) {
    if (!(error instanceof CqilError)) throw error;
    if (error.code === 'ORT_LIBRARY_UNUSABLE') sayOnce(error);
  }
  return undefined;
}

let said = false;

/** Models still run, only as slowly as before: worth one line in the log, unless a library was named. */
function sayOnce(error: CqilError): void {
  if (process.env.CQIL_ORT_LIBRARY) throw error;
  if (said) return;
  said = true;
  process.emitWarning(`Models run through onnxruntime-node: ${error.message} (${error.found})`, {
    code: 'CQIL_BACKEND',
  });
}

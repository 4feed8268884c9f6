import { AsyncLocalStorage } from 'node:async_hooks';
import { CqilError } from '@cqil/core';
import type { LoadedModel } from './types.js';

/** What this module needs of an ONNX Runtime tensor. */
interface RuntimeTensor {
  /** `none` once it has been disposed. */
  readonly location: string;
  dispose(): void;
}

type Outputs = Record<string, RuntimeTensor>;

interface RuntimeSession {
  run(...args: unknown[]): Promise<Outputs>;
}

/** The tensors of one call of `generate` that live on a device. */
interface Call {
  readonly tensors: Set<RuntimeTensor>;
}

/**
 * Makes a model free what its generation leaves behind, and its `dispose` free everything.
 *
 * Transformers.js 4.3 frees the device tensors of a generation when it ends well and nobody asked for the
 * cache. Three things it leaves: the KV cache and the outputs of a generation that throws (a streamer, a
 * logits processor, a broken device); caches that were asked for (`return_dict_in_generate`, or
 * `past_key_values` given) and that the caller dropped; and a model disposed while it runs. A tensor on a
 * device is not garbage to JavaScript, so nothing else ever frees these.
 *
 * - A call of `generate` that throws frees the tensors that it made, except those that it has put into a
 *   cache of the caller's.
 * - `dispose` ends a generation under way at its next token (with the code `MODEL_DISPOSED`), frees every
 *   tensor on a device that the model made and every KV cache, then the sessions. It can be called again.
 *
 * Tensors of logits in the computer's own memory stay readable after `dispose`.
 */
export function freeOnDispose(model: LoadedModel): void {
  const onDevice = new Set<RuntimeTensor>();
  const caches = new WeakTensors();
  const underWay = new Set<Promise<unknown>>();
  const calls = new AsyncLocalStorage<Call>();
  let disposed: ReturnType<typeof model.dispose> | undefined;

  for (const session of Object.values(model.sessions as Record<string, RuntimeSession>)) {
    const run = session.run.bind(session);
    session.run = async (...args) => {
      const outputs = await run(...args);
      prune(onDevice);
      const call = calls.getStore();
      for (const [name, tensor] of Object.entries(outputs)) {
        if (tensor.location !== 'cpu') {
          onDevice.add(tensor);
          call?.tensors.add(tensor);
        } else if (name.startsWith('present')) {
          caches.add(tensor);
        }
      }
      return outputs;
    };
  }

  // Here and not in the session, as Transformers.js prints all inputs of a run that throws.
  const forward = model.forward.bind(model);
  model.forward = (inputs) => {
    if (disposed !== undefined) return Promise.reject(modelDisposed());
    return track(forward(inputs), underWay);
  };

  const generate = model.generate.bind(model);
  const generateAndClean: typeof generate = async (options) => {
    const call: Call = { tensors: new Set() };
    try {
      return await calls.run(call, generate, options);
    } catch (cause) {
      const kept = tensorsOf((options as { past_key_values?: unknown }).past_key_values);
      for (const tensor of call.tensors) if (!kept.has(tensor)) free(tensor);
      prune(onDevice);
      throw cause;
    }
  };
  model.generate = (options) => track(generateAndClean(options), underWay);

  const dispose = model.dispose.bind(model);
  model.dispose = () => {
    disposed ??= (async () => {
      await Promise.allSettled(underWay);
      for (const tensor of onDevice) free(tensor);
      onDevice.clear();
      caches.free();
      return dispose();
    })();
    return disposed;
  };
}

function track<T>(work: Promise<T>, underWay: Set<Promise<unknown>>): Promise<T> {
  const settled = work.finally(() => underWay.delete(settled));
  underWay.add(settled);
  return settled;
}

function modelDisposed(): CqilError {
  return new CqilError('MODEL_DISPOSED', 'The model has been disposed.', {
    expected: 'no use of a model after its dispose()',
    hint: 'load the model again, or dispose it later',
  });
}

function free(tensor: RuntimeTensor): void {
  if (tensor.location !== 'none') tensor.dispose();
}

function prune(tensors: Set<RuntimeTensor>): void {
  for (const tensor of tensors) if (tensor.location === 'none') tensors.delete(tensor);
}

/** The runtime tensors inside a cache of Transformers.js, whose values wrap them. */
function tensorsOf(cache: unknown): Set<unknown> {
  if (typeof cache !== 'object' || cache === null) return new Set();
  return new Set(Object.values(cache).map((tensor: { ort_tensor?: unknown }) => tensor?.ort_tensor));
}

/** Tensors in the computer's memory: the garbage collector frees those that nobody holds. */
class WeakTensors {
  #references: WeakRef<RuntimeTensor>[] = [];
  #limit = 256;

  add(tensor: RuntimeTensor): void {
    this.#references.push(new WeakRef(tensor));
    if (this.#references.length < this.#limit) return;
    this.#references = this.#references.filter((reference) => isLive(reference.deref()));
    this.#limit = Math.max(256, 2 * this.#references.length);
  }

  free(): void {
    for (const reference of this.#references) {
      const tensor = reference.deref();
      if (tensor !== undefined) free(tensor);
    }
    this.#references = [];
  }
}

function isLive(tensor: RuntimeTensor | undefined): boolean {
  return tensor !== undefined && tensor.location !== 'none';
}

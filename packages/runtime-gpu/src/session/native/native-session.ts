import { InferenceError } from '../../errors.js';
import type { TensorValue } from '../../tensor/types.js';
import { checkFeed, checkFetches, checkNames } from '../checks.js';
import { runError } from '../ort-errors.js';
import type { RunOptions, Session, SessionOptions, ValueInfo } from '../types.js';
import { adoptTensor } from './adopted-tensor.js';
import { alignedZeros } from './aligned-tensor.js';
import type { Pointer } from './api.js';
import { Binding, type OutputTarget } from './binding.js';
import type { PlainType } from './element-types.js';
import { callAsync, check, type OrtLibrary } from './library.js';
import { type NameList, nameList } from './name-list.js';
import { ResidentTensor } from './resident-tensor.js';
import { createSessionOptions, LOG_LEVELS } from './session-options.js';
import { type Border, readBorder } from './value-infos.js';

/** Everything that native code reads or writes while a run goes on, so that nothing of it is collected. */
const inUse = new Set<readonly unknown[]>();

/** A loaded model, reached through ONNX Runtime's C API. */
export class NativeSession implements Session {
  readonly binding = 'native';
  readonly model: string;
  readonly inputs: readonly ValueInfo[];
  readonly outputs: readonly ValueInfo[];
  readonly #library: OrtLibrary;
  readonly #inputNames: NameList;
  #session: Pointer | undefined;
  readonly #running = new Set<Promise<unknown>>();
  #released: Promise<void> | undefined;
  readonly #names = new Map<string, NameList>();

  private constructor(library: OrtLibrary, model: string, session: Pointer, border: Border) {
    this.model = model;
    this.inputs = border.inputs;
    this.outputs = border.outputs;
    this.#library = library;
    this.#session = session;
    this.#inputNames = nameList(
      library,
      border.inputs.map((input) => input.name),
    );
  }

  /**
   * Loads a model; `undefined` where an input or output holds strings, which are no plain memory.
   *
   * @param model absolute path of an `.onnx` file, or the bytes of one
   * @throws OrtFailure with ONNX Runtime's words
   */
  static async open(
    library: OrtLibrary,
    label: string,
    model: string | Uint8Array,
    options: SessionOptions,
  ): Promise<NativeSession | undefined> {
    const { api, environment } = library;
    const settings = createSessionOptions(library, options);
    const out = new BigUint64Array(1);
    const held = [model, out];
    inUse.add(held);
    try {
      const status =
        typeof model === 'string'
          ? await callAsync(api.CreateSession, environment, model, settings, out)
          : await callAsync(api.CreateSessionFromArray, environment, model, model.byteLength, settings, out);
      check(api, status);
    } finally {
      inUse.delete(held);
      api.ReleaseSessionOptions(settings);
    }
    const session = out[0]!;
    try {
      const border = readBorder(library, session);
      if (border.plain) return new NativeSession(library, label, session, border);
    } catch (error) {
      api.ReleaseSession(session);
      throw error;
    }
    api.ReleaseSession(session);
    return undefined;
  }

  async run(
    feeds: Readonly<Record<string, TensorValue>>,
    fetches: readonly string[] = this.outputs.map((output) => output.name),
    options: RunOptions = {},
  ): Promise<Record<string, TensorValue>> {
    const outputs = Object.fromEntries(fetches.map((name) => [name, 'tensor' as const]));
    return this.execute(feeds, outputs, options);
  }

  /**
   * Runs the graph once, with control over where tensors lie.
   *
   * @param feeds one tensor for every input
   * @param outputs what to compute, and where to; outputs that are not named are not computed where that saves work
   * @returns the outputs that ONNX Runtime made memory for
   * @throws as `Session.run`; InferenceError `TENSOR_DISPOSED`
   */
  execute(
    feeds: Readonly<Record<string, TensorValue | ResidentTensor>>,
    outputs: Readonly<Record<string, OutputTarget>>,
    options: RunOptions = {},
  ): Promise<Record<string, TensorValue>> {
    return this.runBound(this.bind({}, outputs), feeds, options);
  }

  /**
   * What many runs have in common, prepared once: some of the inputs, and where the outputs go.
   *
   * @throws InferenceError `INPUT_UNKNOWN`, `INPUT_TYPE`, `INPUT_SHAPE`, `OUTPUT_UNKNOWN`, `TENSOR_DISPOSED`
   */
  bind(
    feeds: Readonly<Record<string, ResidentTensor>>,
    outputs: Readonly<Record<string, OutputTarget>>,
  ): Binding {
    const fetches = Object.keys(outputs);
    checkFetches(this.outputs, fetches);
    return new Binding(this.inputs, feeds, outputs, this.#nameList(fetches));
  }

  /**
   * Runs the graph once.
   *
   * @param feeds one tensor for every input that is not bound
   * @param into replaces where outputs go, for this run
   * @returns the outputs that ONNX Runtime made memory for
   * @throws as `execute`
   */
  async runBound(
    binding: Binding,
    feeds: Readonly<Record<string, TensorValue | ResidentTensor>>,
    options: RunOptions = {},
    into: Readonly<Record<string, ResidentTensor>> = {},
  ): Promise<Record<string, TensorValue>> {
    options.signal?.throwIfAborted();
    const session = this.#alive();
    checkNames(binding.open, feeds);
    const run = this.#run(session, binding, feeds, into, options.signal);
    this.#running.add(run);
    try {
      return await run;
    } finally {
      this.#running.delete(run);
    }
  }

  /** Memory for a tensor to be kept, where ONNX Runtime reads it fastest; zeros. */
  zeros(type: PlainType, dims: readonly number[]): TensorValue {
    return alignedZeros(this.#library, type, dims);
  }

  /** A tensor for `execute` over the memory of `tensor`, which is shared. @throws as `ResidentTensor.over` */
  resident(tensor: TensorValue): ResidentTensor {
    return ResidentTensor.over(this.#library, tensor);
  }

  dispose(): Promise<void> {
    const session = this.#session;
    this.#session = undefined;
    this.#released ??= Promise.allSettled(this.#running).then(() => {
      if (session !== undefined) this.#library.api.ReleaseSession(session);
    });
    return this.#released;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }

  #alive(): Pointer {
    if (this.#session !== undefined) return this.#session;
    throw new InferenceError('SESSION_DISPOSED', `The session of ${this.model} was disposed.`, {
      hint: 'Open the model again.',
    });
  }

  async #run(
    session: Pointer,
    binding: Binding,
    feeds: Readonly<Record<string, TensorValue | ResidentTensor>>,
    into: Readonly<Record<string, ResidentTensor>>,
    signal: AbortSignal | undefined,
  ): Promise<Record<string, TensorValue>> {
    const library = this.#library;
    const { api } = library;
    const inputValues = binding.inputValues.slice();
    const outputValues = binding.outputValues.slice();
    const temporary: ResidentTensor[] = [];
    const held: unknown[] = [inputValues, outputValues, binding, feeds, into];
    let settings: Pointer | undefined;
    inUse.add(held);
    try {
      binding.openAt.forEach((at, i) => {
        const input = binding.open[i]!;
        const feed = feeds[input.name]!;
        checkFeed(input, feed);
        if (feed instanceof ResidentTensor) {
          inputValues[at] = feed.value;
          return;
        }
        const made = ResidentTensor.over(library, feed, input.name);
        temporary.push(made);
        held.push(made.memory);
        inputValues[at] = made.value;
      });
      for (const [name, tensor] of Object.entries(into)) {
        outputValues[binding.fetches.indexOf(name)] = tensor.value;
      }
      settings = this.#runOptions();
      const terminate = () => {
        // Between two of its nodes the run ends with an error; the listener is gone before the options are released.
        check(api, api.RunOptionsSetTerminate(settings!));
      };
      signal?.addEventListener('abort', terminate);
      try {
        const status = await callAsync(
          api.Run,
          session,
          settings,
          this.#inputNames.pointers,
          inputValues,
          this.inputs.length,
          binding.outputNames.pointers,
          binding.fetches.length,
          outputValues,
        );
        check(api, status);
      } catch (error) {
        signal?.throwIfAborted();
        throw runError(this.model, error);
      } finally {
        signal?.removeEventListener('abort', terminate);
      }
      return this.#results(binding, into, outputValues);
    } finally {
      inUse.delete(held);
      if (settings !== undefined) api.ReleaseRunOptions(settings);
      for (const tensor of temporary) tensor.dispose();
    }
  }

  #results(
    binding: Binding,
    into: Readonly<Record<string, ResidentTensor>>,
    values: BigUint64Array,
  ): Record<string, TensorValue> {
    const results: Record<string, TensorValue> = {};
    let failure: { readonly error: unknown } | undefined;
    for (const at of binding.madeAt) {
      const name = binding.fetches[at]!;
      if (into[name] !== undefined) continue;
      // Every value is taken into care, also after one that cannot be handed out.
      try {
        results[name] = adoptTensor(this.#library, values[at]!, name);
      } catch (error) {
        failure ??= { error };
      }
    }
    if (failure !== undefined) throw failure.error;
    return results;
  }

  #runOptions(): Pointer {
    const { api } = this.#library;
    const out = new BigUint64Array(1);
    check(api, api.CreateRunOptions(out));
    const made = out[0]!;
    check(api, api.RunOptionsSetRunLogSeverityLevel(made, LOG_LEVELS.silent));
    return made;
  }

  /** Names as C strings, kept for the next run with the same ones. */
  #nameList(names: readonly string[]): NameList {
    const key = names.join('\0');
    let list = this.#names.get(key);
    if (list === undefined) {
      list = nameList(this.#library, names);
      if (this.#names.size >= MOST_NAME_LISTS) this.#names.clear();
      this.#names.set(key, list);
    }
    return list;
  }
}

/** Who asks for ever new sets of outputs does not fill the memory with their names. */
const MOST_NAME_LISTS = 64;

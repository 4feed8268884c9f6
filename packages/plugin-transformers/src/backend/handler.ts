import type { NativeSession, TensorValue } from '@cqil/runtime-gpu';
import { Decoder } from './decoder/decoder.js';
import { calledByGenerate } from './decoder/generate-frame.js';
import type { PrefixStore } from './decoder/prefix-store.js';
import { asOrtError } from './errors.js';
import type { Feeds, Fetches, OrtHandler, OrtTensorClass, OrtValueMetadata, Results } from './ort.js';
import { metadataOf, toTensor, toValue, writeInto } from './tensors.js';

export interface HandlerOptions {
  readonly Tensor: OrtTensorClass;
  readonly prefixes: PrefixStore | undefined;
  /** Folders of the Transformers.js packages whose `generate` is known. */
  readonly transformers: readonly string[];
}

interface Abandoned {
  readonly session: NativeSession;
  readonly prefixes: PrefixStore | undefined;
}

/** The net under `dispose`: a model that the program dropped is freed, as onnxruntime-node does. */
const abandoned = new FinalizationRegistry<Abandoned>(({ session, prefixes }) => {
  prefixes?.drop(session);
  void session.dispose();
});

/** What stands behind an `InferenceSession`: a native session, and what is known of decoders. */
export class NativeHandler implements OrtHandler {
  readonly inputNames: readonly string[];
  readonly outputNames: readonly string[];
  readonly inputMetadata: readonly OrtValueMetadata[];
  readonly outputMetadata: readonly OrtValueMetadata[];
  readonly #session: NativeSession;
  readonly #decoder: Decoder | undefined;
  readonly #options: HandlerOptions;

  private constructor(session: NativeSession, decoder: Decoder | undefined, options: HandlerOptions) {
    this.#session = session;
    this.#decoder = decoder;
    this.#options = options;
    this.inputMetadata = metadataOf(session.inputs);
    this.outputMetadata = metadataOf(session.outputs);
    this.inputNames = session.inputs.map(({ name }) => name);
    this.outputNames = session.outputs.map(({ name }) => name);
    abandoned.register(this, { session, prefixes: options.prefixes }, this);
  }

  /** Takes the session over. */
  static async of(session: NativeSession, options: HandlerOptions): Promise<NativeHandler> {
    try {
      return new NativeHandler(session, await Decoder.of(session, options), options);
    } catch (error) {
      await session.dispose();
      throw error;
    }
  }

  async run(feeds: Feeds, fetches: Fetches): Promise<Results> {
    const names = Object.keys(fetches);
    try {
      const given = names.some((name) => fetches[name] !== null);
      // Without a pause before the run begins: a session that is released right after must not go first.
      if (this.#decoder === undefined || given) return await this.#runAsItIs(feeds, fetches, names);
      const lastOnly = () => calledByGenerate(this.#options.transformers);
      const results = await this.#decoder.run(feeds, names, lastOnly);
      return results ?? (await this.#runAsItIs(feeds, fetches, names));
    } catch (error) {
      throw asOrtError(error, this.#session.inputs, feeds);
    }
  }

  async #runAsItIs(feeds: Feeds, fetches: Fetches, names: readonly string[]): Promise<Results> {
    const inputs = Object.fromEntries(this.inputNames.map((name) => [name, toValue(feeds[name]!)]));
    const values: Record<string, TensorValue> = await this.#session.run(inputs, names);
    const results: Results = {};
    for (const name of names) {
      const given = fetches[name];
      if (given != null) writeInto(given, values[name]!);
      results[name] = toTensor(this.#options.Tensor, values[name]!);
    }
    return results;
  }

  dispose(): Promise<void> {
    abandoned.unregister(this);
    this.#options.prefixes?.drop(this.#session);
    return this.#session.dispose();
  }

  /** As in onnxruntime-node, nothing happens: a session that is to be profiled is not opened here. */
  startProfiling(): void {}

  endProfiling(): void {}
}

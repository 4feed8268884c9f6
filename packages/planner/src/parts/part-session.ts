import {
  decoderFeeds,
  decoderInputs,
  type ElementType,
  InferenceError,
  type Session,
  type SessionOptions,
  type TensorValue,
  type ValueInfo,
} from '@cqil/runtime-gpu';
import { openVariant } from '../variant/index.js';
import type { PartModel } from './cut.js';

export interface PartRequest {
  /** Token ids `[batch][sequence]`; those of a part that reads none need the shape only. */
  readonly ids: readonly (readonly number[])[];
  /** Values for inputs that decoders do not have. */
  readonly cut?: Readonly<Record<string, TensorValue>>;
  readonly fetches: readonly string[];
  readonly signal?: AbortSignal | undefined;
}

/** A part of a decoder, loaded when it is first run. */
export class PartSession {
  readonly label: string;
  readonly taps: ReadonlySet<string>;
  readonly #part: PartModel;
  readonly #tokens: ValueInfo;
  readonly #options: SessionOptions;
  #session: Promise<Session> | undefined;
  #disposed = false;

  /** @param tokens the whole model's input of token ids: it says which axis of a cache is the batch */
  constructor(part: PartModel, tokens: ValueInfo, options: SessionOptions) {
    this.label = part.label;
    this.taps = new Set(part.taps);
    this.#part = part;
    this.#tokens = tokens;
    this.#options = options;
  }

  /** Loads it; what is loaded stays until `dispose`. */
  open(): Promise<Session> {
    if (this.#disposed) return Promise.reject(disposed(this.label));
    if (this.#session === undefined) {
      const opening = openVariant(this.#part.model, this.#options);
      this.#session = opening;
      // A failure is reported to who asked, and tried again by who asks next.
      opening.catch(() => {
        if (this.#session === opening) this.#session = undefined;
      });
    }
    return this.#session;
  }

  /** Runs it from an empty cache, all positions of all sequences. */
  async run(request: PartRequest): Promise<Record<string, TensorValue>> {
    request.signal?.throwIfAborted();
    const session = await this.open();
    request.signal?.throwIfAborted();
    const { ids, cut = {} } = request;
    const ofDecoder = session.inputs.filter((input) => cut[input.name] === undefined);
    const reads = ofDecoder.some((input) => input.name === this.#tokens.name);
    const inputs = decoderInputs(reads ? ofDecoder : [this.#tokens, ...ofDecoder]);
    const feeds = { ...decoderFeeds(inputs, { ids, mask: ids.map((row) => row.map(() => 1)) }), ...cut };
    if (!reads) delete (feeds as Record<string, TensorValue>)[this.#tokens.name];
    return session.run(feeds, request.fetches);
  }

  /** Element type of an output. */
  async outputType(name: string): Promise<ElementType | undefined> {
    return (await this.open()).outputs.find((output) => output.name === name)?.elementType;
  }

  async dispose(): Promise<void> {
    this.#disposed = true;
    const opening = this.#session;
    this.#session = undefined;
    await opening?.then(
      (session) => session.dispose(),
      () => undefined,
    );
  }
}

function disposed(label: string): InferenceError {
  return new InferenceError('SESSION_DISPOSED', `The parts of this model were disposed: ${label}.`, {
    hint: 'Open the model again.',
  });
}

import type { OnProgress } from '@cqil/core';
import type { GroupResult, ModelParts, StreamBatch } from '../parts/index.js';
import { batchWindows, type CostText, checkTexts, kindsOf, type WindowBatch } from './windows.js';

export interface ReferenceStreamsOptions {
  /** Tokens run at once; 512 when absent. */
  readonly positions?: number;
  /** Bytes of states to hold; 1 GiB when absent. Where they do not suffice, every second, third, ... layer's is held. */
  readonly memory?: number;
  readonly signal?: AbortSignal;
  readonly onProgress?: OnProgress;
}

export const DEFAULT_POSITIONS = 512;
const DEFAULT_MEMORY = 2 ** 30;

/** The original's states of the stream for one batch: the input of each layer, and what leaves the last. */
export interface BatchStates {
  readonly inputs: readonly StreamBatch[];
  /** What each layer adds. */
  readonly contributions: readonly StreamBatch[];
}

/** Runs the original over a batch and keeps everything. */
export async function batchStates(
  parts: ModelParts,
  { ids }: WindowBatch,
  signal?: AbortSignal,
): Promise<BatchStates> {
  const inputs = [await parts.embed(ids, { signal })];
  const contributions: StreamBatch[] = [];
  for (const { index } of parts.layers) {
    const x = inputs[index] as StreamBatch;
    const result: GroupResult = await parts.sharing(x, { signal }).group([index], 0);
    inputs.push(result.output);
    contributions.push(...result.contributions);
  }
  return { inputs, contributions };
}

/**
 * The original model's states on a text, held in memory, so that what a plan leaves as it is need not be computed
 * again: a plan costs its first group and all behind it.
 */
export class ReferenceStreams {
  readonly layers: number;
  readonly kinds: readonly string[];
  readonly batches: readonly WindowBatch[];
  /** By batch, then by layer; the last is the final state. */
  readonly #states: readonly (readonly (StreamBatch | undefined)[])[];

  private constructor(
    layers: number,
    kinds: readonly string[],
    batches: readonly WindowBatch[],
    states: readonly (readonly (StreamBatch | undefined)[])[],
  ) {
    this.layers = layers;
    this.kinds = kinds;
    this.batches = batches;
    this.#states = states;
  }

  /**
   * @throws UsageError `COSTS_TEXT`; MetricError `ACTIVATION_NOT_FINITE` naming the layer; InferenceError; the
   *   signal's reason
   */
  static async compute(
    parts: ModelParts,
    texts: readonly CostText[],
    options: ReferenceStreamsOptions = {},
  ): Promise<ReferenceStreams> {
    checkTexts(texts, 0);
    const { positions = DEFAULT_POSITIONS, memory = DEFAULT_MEMORY, signal, onProgress } = options;
    const { batches } = batchWindows(texts, { positions, together: parts.exactBatches });
    const layers = parts.layers.length;
    const total = batches.reduce((sum, { ids }) => sum + ids.length * ids[0]!.length, 0);
    const states: (StreamBatch | undefined)[][] = [];
    let done = 0;
    for (const batch of batches) {
      const { inputs } = await batchStates(parts, batch, signal);
      const oneLayer = total * inputs[0]!.dims[2] * Float32Array.BYTES_PER_ELEMENT;
      const stride = Math.max(1, Math.ceil(((layers + 1) * oneLayer) / memory));
      states.push(
        inputs.map((state, layer) => (layer % stride === 0 || layer === layers ? state : undefined)),
      );
      done += batch.ids.length * batch.ids[0]!.length;
      onProgress?.({ phase: 'running the original', done, total, unit: 'tokens' });
    }
    return new ReferenceStreams(layers, kindsOf(texts), batches, states);
  }

  /** What leaves the last layer. */
  final(batch: number): StreamBatch {
    return this.#states[batch]?.[this.layers] as StreamBatch;
  }

  /** The input of the last layer up to `layer` whose input is held. */
  before(batch: number, layer: number): { readonly layer: number; readonly stream: StreamBatch } {
    for (let at = layer; ; at--) {
      const stream = this.#states[batch]?.[at];
      if (stream !== undefined) return { layer: at, stream };
    }
  }
}

import type { OnProgress } from '@cqil/core';
import type { SessionOptions } from '@cqil/runtime-gpu';
import type { Model } from '../../onnx/index.js';
import type { Names } from '../names.js';

/** The passes, in the order in which they are run. */
export const FUSE_PASSES = [
  'casts',
  'rms-norm',
  'layer-norm',
  'products',
  'attention',
  'rotary',
  'pack-qkv',
  'pack-gate-up',
  'skip-norm',
  'quantise',
] as const;

export type FusePassName = (typeof FUSE_PASSES)[number];

/**
 * What padding a fused attention understands.
 * - `left`: whatever the attention mask hides stays hidden, so batches padded on the left are right. Needs kernels of
 *   `GroupQueryAttention` that take an `attention_bias`: CPU and WebGPU have it, CUDA does not.
 * - `none`: the form of ONNX Runtime GenAI's builder, `seqlens_k = Σ attention_mask − 1`. It runs everywhere, but takes
 *   a sequence's first `seqlens_k + 1` cache entries for its tokens: right for single sequences, batches of one length
 *   and padding on the right, wrong for padding on the left.
 */
export type FusePadding = 'left' | 'none';

export interface FuseOptions {
  /** `left` when absent. */
  readonly padding?: FusePadding;
  /**
   * For how many positions the tables of rotary embeddings are written; longer sequences are refused by ONNX Runtime.
   * 8,192 when absent.
   */
  readonly maxPositions?: number;
  /** Stores the matrices in blocks of so many bits, for `MatMulNBits`; they stay as they are when absent. */
  readonly bits?: 4 | 8;
  /** Inputs that share a scale; 32 when absent. */
  readonly blockSize?: number;
  /** Passes left out. */
  readonly without?: readonly FusePassName[];
  /** For the parts of the graph that are run to find out what they compute. */
  readonly session?: SessionOptions;
  readonly signal?: AbortSignal;
  readonly onProgress?: OnProgress;
}

/** A place that a pass looked at and left as it was. */
export interface FuseRefusal {
  /** The node, as errors name it: `Softmax "/layers.0/…"`. */
  readonly node: string;
  readonly expected: string;
  readonly found: string;
}

export interface FusePassReport {
  readonly name: FusePassName;
  /** How many places were changed. */
  readonly applied: number;
  readonly refused: readonly FuseRefusal[];
}

export interface FuseResult {
  readonly model: Model;
  /** One for each pass that was run, in `FUSE_PASSES`' order. */
  readonly passes: readonly FusePassReport[];
  /** What the user should know, a sentence each. */
  readonly notes: readonly string[];
}

/** What a pass works on. The model is the pass's own to change. */
export interface FuseContext {
  readonly model: Model;
  readonly names: Names;
  readonly options: FuseOptions;
}

/** One way of saying the same with fewer nodes. Finds its places by dataflow, and says why it left others. */
export type FusePass = (context: FuseContext) => Promise<FusePassReport | readonly FusePassReport[]>;

/** Thrown inside a pass to leave one place as it is. */
export class Refused extends Error {
  constructor(readonly refusal: FuseRefusal) {
    super(`${refusal.node}: expected ${refusal.expected}, found ${refusal.found}`);
  }
}

/** Collects what a pass did. */
export class Tally {
  readonly #name: FusePassName;
  readonly #refused: FuseRefusal[] = [];
  #applied = 0;

  constructor(name: FusePassName) {
    this.#name = name;
  }

  applied(count = 1): void {
    this.#applied += count;
  }

  refused(node: string, expected: string, found: string): void {
    this.#refused.push({ node, expected, found });
  }

  /** Tries one place; what it refuses is noted. */
  async attempt(place: () => Promise<void> | void): Promise<void> {
    try {
      await place();
      this.#applied += 1;
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      this.#refused.push(error.refusal);
    }
  }

  report(): FusePassReport {
    return { name: this.#name, applied: this.#applied, refused: this.#refused };
  }
}

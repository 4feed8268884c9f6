import type { Node } from '../onnx/index.js';

/**
 * A sum on the residual stream: `sum = skip + Σ contributions`.
 *
 * In Optimum's graphs it is an `Add`, in graphs for fast runtimes a `Skip…LayerNormalization` that normalises
 * the sum at once.
 */
export interface ResidualAdd {
  /** The node that gives the sum. */
  readonly node: Node;
  /** Whether the node is a fused skip norm. */
  readonly fused: boolean;
  /** What the stream was before: the value that the step's branches read, too. */
  readonly skip: string;
  /** What is added to it, each of the shape of `skip`, or a bias `[hidden]` that the fused node adds. */
  readonly contributions: readonly string[];
  /** The sum. In a fused node that nobody asked for it, the name that it would have. */
  readonly sum: string;
  /** The sum behind its carriers, which everything else reads; the same as `sum` where there are none. */
  readonly carried: string;
  /** Nodes that carry the sum on in another type or shape: casts, or reshapes to `[batch * seq, hidden]` and back. */
  readonly carriers: readonly Node[];
}

export type NormKind = 'rms' | 'layer' | 'none';

/** One branch of a residual step: from the stream's value to what is added to it. */
export interface BranchAnatomy {
  readonly add: ResidualAdd;
  /** The nodes that only this branch needs, in topological order. */
  readonly nodes: readonly Node[];
  /** The norm at the branch's entry. */
  readonly norm: NormKind;
  /** The normalised value, where there is a norm. */
  readonly normOutput: string | undefined;
  /** A norm behind the branch, before it is added (Gemma 2/3, OLMo 2). */
  readonly postNorm: NormKind;
}

/** Cache values of one layer, in the order of the graph. */
export interface CacheAnatomy {
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
}

/**
 * How a layer is built on the stream:
 * - `sequential`: `f = x + attn(x)`, `y = f + ffn(f)`
 * - `parallel`: `y = x + attn(x) + ffn(x)` (GPT-NeoX, Phi); no bypass exists
 * - `attention-only`, `ffn-only`: one of the two is missing (pruned models)
 */
export type LayerKind = 'sequential' | 'parallel' | 'attention-only' | 'ffn-only';

export interface LayerAnatomy {
  /** 0-based, in the order of the stream. */
  readonly index: number;
  readonly kind: LayerKind;
  /** The stream's value that the layer reads, `[batch, seq, hidden]`. */
  readonly input: string;
  /** The stream's value behind the layer. */
  readonly output: string;
  /** The step with the attention (in a `parallel` layer, with the FFN as well). */
  readonly attention: BranchAnatomy | undefined;
  /** The FFN's own step; `undefined` in `parallel` and `attention-only` layers. */
  readonly ffn: BranchAnatomy | undefined;
  readonly cache: CacheAnatomy;
  /** Why the layer can't be in a group; `undefined` when it can. */
  readonly ungroupable: string | undefined;
}

/** What a decoder graph consists of, found by following the residual stream. */
export interface Anatomy {
  readonly layers: readonly LayerAnatomy[];
  /** The stream's value before the first layer. */
  readonly streamStart: string;
  /** The stream's value behind the last layer, before the final norm. */
  readonly streamEnd: string;
  /** The graph input that the stream comes from: token ids, or embeddings. */
  readonly tokens: string;
  readonly logits: string;
}

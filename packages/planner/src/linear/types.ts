import type { Node } from '../onnx/index.js';

/**
 * Where a map stands in its layer:
 * - `qkv`: reads what the attention branch reads first (behind its norm); separate q, k and v are a map each,
 *   a packed product is one
 * - `o`: from the attention's inner value to what the attention adds to the stream
 * - `gate-up`: reads what the FFN branch reads first (gate, up, both packed, or the one matrix before the activation)
 * - `down`: from the FFN's inner value to what the FFN adds to the stream
 */
export type MapRole = 'qkv' | 'o' | 'gate-up' | 'down';

/**
 * An affine map of one layer, `output = input · W + b` for each token, whatever its graph stores W in. The values keep
 * their names in a graph that `rewriteBranches` made, so a map found in the original holds there, too; all but maps that
 * read the stream itself, without a norm (OLMo 2), which in a group read the group's input.
 */
export interface LinearMap {
  /** 0-based, as in the anatomy. */
  readonly layer: number;
  readonly role: MapRole;
  /** Value of the graph, `[…, inFeatures]`: batch and sequence may be folded into one axis. */
  readonly input: string;
  /**
   * Value of the graph, `[…, outFeatures]`, behind the bias where there is one. For `o` and `down` it is what is added
   * to the stream, a residual multiplier included.
   */
  readonly output: string;
  readonly inFeatures: number;
  readonly outFeatures: number;
  /** Whether a bias is added between `input` and `output`. */
  readonly hasBias: boolean;
  /** The nodes from `input` to `output` in topological order, those that only make constants left out. */
  readonly nodes: readonly Node[];
}

/** Why a layer has no map in a role. */
export interface MapRefusal {
  readonly layer: number;
  readonly role: MapRole;
  /** In words for the user, without a full stop: `a norm stands behind the FFN`. */
  readonly refused: string;
}

export interface LinearMaps {
  /** By layer, then in the order `qkv`, `o`, `gate-up`, `down`, then in that of the graph. */
  readonly maps: readonly LinearMap[];
  readonly refusals: readonly MapRefusal[];
}

import type { Bypass } from '@cqil/core';
import type { LayerAnatomy } from '../anatomy/index.js';
import { type StreamBatch, sumOf } from './stream-batch.js';

/** Computes the branches of layers; `ModelParts` does. */
export interface BranchSource {
  readonly layers: readonly Pick<LayerAnatomy, 'index' | 'kind' | 'attention' | 'ffn'>[];
  /** a_j: what the attention of layer j adds when it reads x (in a parallel block, with the FFN). */
  contributionOfAttention(j: number, x: StreamBatch, signal?: AbortSignal): Promise<StreamBatch>;
  /** m_j: what its FFN adds when it reads f. */
  contributionOfFfn(j: number, f: StreamBatch, signal?: AbortSignal): Promise<StreamBatch>;
}

export interface GroupResult {
  /** y = x + Σ_j (a_j + m_j) */
  readonly output: StreamBatch;
  /** a_j + m_j by member. */
  readonly contributions: readonly StreamBatch[];
}

/**
 * The layers, by index, whose attention outputs the FFN of layer `j` of a group reads: its own, and those that the
 * bypass lets through (CQIL, arXiv 2404.06709; `'full'`: Layer Parallelism, arXiv 2502.02790). A layer without
 * attention has none to give, a parallel block passes none on.
 */
export function attentionRead(
  layers: readonly number[],
  bypass: Bypass,
  j: number,
  of: BranchSource['layers'],
): number[] {
  return layers.filter((k) => {
    const layer = of[k];
    if (layer?.attention === undefined) return false;
    if (k === j) return true;
    return layer.kind !== 'parallel' && (bypass === 'full' || (k < j && j - k <= bypass));
  });
}

/**
 * The branches of layers that read one state x, computed once each: groups that begin at the same layer, of whatever
 * size and bypass, share the attention outputs and those FFN outputs that come from the same sum.
 */
export class SharedInput {
  readonly #source: BranchSource;
  readonly #x: StreamBatch;
  readonly #signal: AbortSignal | undefined;
  readonly #attention = new Map<number, StreamBatch>();
  readonly #ffn = new Map<string, StreamBatch>();

  constructor(source: BranchSource, x: StreamBatch, signal?: AbortSignal) {
    this.#source = source;
    this.#x = x;
    this.#signal = signal;
  }

  /** @param layers neighbours in ascending order; one alone computes that layer as it is */
  async group(layers: readonly number[], bypass: Bypass): Promise<GroupResult> {
    const of = this.#source.layers;
    const contributions: StreamBatch[] = [];
    for (const j of layers) {
      const parts: StreamBatch[] = [];
      if (of[j]?.attention !== undefined) parts.push(await this.#attentionOf(j));
      if (of[j]?.ffn !== undefined) parts.push(await this.#ffnOf(j, attentionRead(layers, bypass, j, of)));
      const [first, ...others] = parts;
      contributions.push(sumOf(first as StreamBatch, ...others));
    }
    return { output: sumOf(this.#x, ...contributions), contributions };
  }

  async #attentionOf(j: number): Promise<StreamBatch> {
    const known = this.#attention.get(j);
    if (known !== undefined) return known;
    const found = await this.#source.contributionOfAttention(j, this.#x, this.#signal);
    this.#attention.set(j, found);
    return found;
  }

  async #ffnOf(j: number, reads: readonly number[]): Promise<StreamBatch> {
    const key = `${j}:${reads.join()}`;
    const known = this.#ffn.get(key);
    if (known !== undefined) return known;
    const terms: StreamBatch[] = [];
    for (const k of reads) terms.push(await this.#attentionOf(k));
    const found = await this.#source.contributionOfFfn(j, sumOf(this.#x, ...terms), this.#signal);
    this.#ffn.set(key, found);
    return found;
  }
}

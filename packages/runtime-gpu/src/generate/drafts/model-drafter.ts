import {
  draw,
  keepDistribution,
  likeliest,
  type TokenDistribution,
  tokenDistribution,
} from '../distribution.js';
import type { SamplingOptions } from '../sampling.js';
import type { SequenceReader } from '../sequence-reader.js';
import { shapeLogits } from '../shaping.js';
import type { TokenHistory } from '../token-history.js';
import type { Draft, DraftKind, DraftRequest, DraftSource } from './types.js';

const KIND: DraftKind = { id: 0, chance: 0.7 };

export interface ModelDrafterOptions {
  readonly sampling: SamplingOptions;
  /** Of the target; what is drafted is taken out again. */
  readonly history: TokenHistory;
  /** Numbers in [0, 1), others than the target uses. */
  readonly random: () => number;
  /** Tokens that end the text: nothing is drafted after one. */
  readonly ends: ReadonlySet<number>;
}

/** Drafts with a smaller model of the same vocabulary: most likely tokens, or draws where the target draws. */
export class ModelDrafter implements DraftSource {
  readonly #reader: SequenceReader;
  readonly #options: ModelDrafterOptions;
  /** So many tokens at the beginning of what was read are surely the context's. */
  #agreed: number | undefined;

  constructor(reader: SequenceReader, options: ModelDrafterOptions) {
    this.#reader = reader;
    this.#options = options;
  }

  look(): DraftKind {
    return KIND;
  }

  async draft({ context, limit, vocabulary }: DraftRequest): Promise<Draft> {
    const reader = this.#reader;
    if (this.#agreed === undefined) reader.resume(context);
    else reader.rewind(Math.min(reader.agreement(context, this.#agreed), context.length - 1));
    // After a draft that was taken whole there are two tokens to read.
    const warming = context.length - reader.length > 2;
    let rows = await reader.read(context.slice(reader.length), 'last');
    this.#agreed = context.length;

    const { sampling, history, random, ends } = this.#options;
    const greedy = (sampling.temperature ?? 0) === 0;
    const ids: number[] = [];
    const drawnFrom: TokenDistribution[] = [];
    try {
      for (;;) {
        const logits = shapeLogits(rows.at(-1).subarray(0, vocabulary), sampling, history);
        let id: number;
        if (greedy) {
          id = likeliest(logits);
        } else {
          const distribution = keepDistribution(tokenDistribution(logits, sampling));
          drawnFrom.push(distribution);
          id = draw(distribution, random);
        }
        ids.push(id);
        history.push(id);
        if (ids.length === limit || ends.has(id)) break;
        rows = await reader.read([id], 'last');
      }
    } finally {
      for (const id of ids) history.remove(id);
    }
    return { ids, warming, ...(greedy ? {} : { drawnFrom }) };
  }

  release(): void {
    this.#reader.release();
  }
}

import { asFloat32, integerTensor, type TensorValue } from '@cqil/runtime-gpu';
import { LOGITS_OUTPUT, STREAM_INPUT } from './cut.js';
import type { PartSession } from './part-session.js';
import { AGREES_OUTPUT, KL_OUTPUT, LOSS_OUTPUT, TARGETS_INPUT } from './scoring-graph.js';
import { requireFinite, type StreamBatch } from './stream-batch.js';

/** How one model predicts the tokens of a batch, by predicted token: `[batch, sequence − 1]`. */
export interface StreamScores {
  /** −ln p of the token, nats. */
  readonly loss: Float32Array;
}

/** The same, compared with the reference. */
export interface ComparedStreamScores extends StreamScores {
  /** KL(reference ‖ this) of the distribution that predicts the token, nats; not below 0. */
  readonly kl: Float32Array;
  /** 1 where the reference's best token is a best one here, else 0. */
  readonly agrees: Float32Array;
}

export interface Scores {
  readonly reference: StreamScores;
  readonly others: readonly ComparedStreamScores[];
}

/**
 * Rows of logits in one run. More do not make it faster (measured at 49,152 tokens of vocabulary: 64 to 512 rows), and
 * each costs a few times the vocabulary in memory.
 */
const MAX_ROWS = 128;
/** Fewer where the vocabulary is very large: 128 MiB of logits in float32. */
const MAX_LOGITS = 2 ** 25;
/** Models compared in one run: more would save little of the reference's product, and leave few positions. */
const MAX_OTHERS = 7;

/** Runs the head on chunks of positions, so that memory is bounded whatever the batch. */
export class HeadScorer {
  readonly #head: PartSession;
  #vocabulary: number | undefined;

  constructor(head: PartSession) {
    this.#head = head;
  }

  /** Logits `[batch, sequence, vocabulary]`. All of them leave ONNX Runtime. */
  async logits(stream: StreamBatch, signal?: AbortSignal): Promise<TensorValue> {
    const [batch, sequence] = stream.dims;
    const targets = Array.from({ length: batch * sequence }, () => 0);
    const results = await this.#run(stream, targets, [LOGITS_OUTPUT], signal);
    return results[LOGITS_OUTPUT] as TensorValue;
  }

  /**
   * @param others final states of the stream, each of the shape of `reference`; none for the reference's loss alone
   * @param ids `[batch][sequence]`
   */
  async score(
    reference: StreamBatch,
    others: readonly StreamBatch[],
    ids: readonly (readonly number[])[],
    signal?: AbortSignal,
  ): Promise<Scores> {
    const first = await this.#scoreSome(reference, others.slice(0, MAX_OTHERS), ids, signal);
    const compared = [...first.others];
    for (let at = MAX_OTHERS; at < others.length; at += MAX_OTHERS) {
      const some = others.slice(at, at + MAX_OTHERS);
      compared.push(...(await this.#scoreSome(reference, some, ids, signal)).others);
    }
    return { reference: first.reference, others: compared };
  }

  async #scoreSome(
    reference: StreamBatch,
    others: readonly StreamBatch[],
    ids: readonly (readonly number[])[],
    signal: AbortSignal | undefined,
  ): Promise<Scores> {
    const [, sequence, hidden] = reference.dims;
    const streams = [reference, ...others];
    const places = ids.flatMap((row, b) =>
      row.slice(1).map((target, t) => ({ row: b * sequence + t, target })),
    );
    const make = () => new Float32Array(places.length);
    const losses = streams.map(make);
    const compared = others.map((_, k) => ({ loss: losses[k + 1]!, kl: make(), agrees: make() }));
    for (let at = 0; at < places.length; ) {
      const chunk = places.slice(at, at + (await this.#positions(streams.length, hidden, signal)));
      const data = new Float32Array(streams.length * chunk.length * hidden);
      let to = 0;
      for (const { data: from } of streams) {
        for (const { row } of chunk) {
          data.set(from.subarray(row * hidden, (row + 1) * hidden), to);
          to += hidden;
        }
      }
      const targets = streams.flatMap(() => chunk.map(({ target }) => target));
      const batch: StreamBatch = { data, dims: [streams.length, chunk.length, hidden] };
      const results = await this.#run(batch, targets, [LOSS_OUTPUT, KL_OUTPUT, AGREES_OUTPUT], signal);
      const [loss, kl, agrees] = [LOSS_OUTPUT, KL_OUTPUT, AGREES_OUTPUT].map((name) =>
        asFloat32(results[name] as TensorValue),
      ) as [Float32Array, Float32Array, Float32Array];
      requireFinite(loss, 'the logits');
      requireFinite(kl, 'the logits');
      for (const [k, row] of losses.entries()) {
        row.set(loss.subarray(k * chunk.length, (k + 1) * chunk.length), at);
      }
      for (const [k, row] of compared.entries()) {
        const range = [k * chunk.length, (k + 1) * chunk.length] as const;
        // What rounding takes below 0 is cut off.
        row.kl.set(
          kl.subarray(...range).map((value) => Math.max(0, value)),
          at,
        );
        row.agrees.set(agrees.subarray(...range), at);
      }
      at += chunk.length;
    }
    return { reference: { loss: losses[0]! }, others: compared };
  }

  /** Positions in one run: as many as keep its logits within the bound. */
  async #positions(streams: number, hidden: number, signal: AbortSignal | undefined): Promise<number> {
    this.#vocabulary ??= await this.#measureVocabulary(hidden, signal);
    const rows = Math.min(MAX_ROWS, Math.floor(MAX_LOGITS / this.#vocabulary));
    return Math.max(1, Math.floor(rows / streams));
  }

  async #measureVocabulary(hidden: number, signal: AbortSignal | undefined): Promise<number> {
    const one: StreamBatch = { data: new Float32Array(hidden).fill(1), dims: [1, 1, hidden] };
    return (await this.logits(one, signal)).dims.at(-1) ?? 1;
  }

  #run(
    stream: StreamBatch,
    targets: readonly number[],
    fetches: readonly string[],
    signal: AbortSignal | undefined,
  ): Promise<Record<string, TensorValue>> {
    const [batch, positions] = stream.dims;
    return this.#head.run({
      ids: Array.from({ length: batch }, () => Array.from({ length: positions }, () => 0)),
      cut: {
        [STREAM_INPUT]: { type: 'float32', dims: stream.dims, data: stream.data },
        [TARGETS_INPUT]: integerTensor('int64', targets, [batch, positions, 1]),
      },
      fetches,
      signal,
    });
  }
}

import { createHash } from 'node:crypto';
import type { CandidateGroup, OnProgress } from '@cqil/core';
import type { ModelParts } from '../parts/index.js';
import { badOption, type CandidateOptions, candidateGroups, DEFAULT_GROUP_SIZES } from './candidates.js';
import type { CostsResult, MeasuredCandidate } from './document.js';
import { type HalvingOptions, halvingOf, keptOf, type RankedBy, roundEnds, survivors } from './halving.js';
import { type CostRecord, Journal } from './journal.js';
import { measureFrom } from './measure.js';
import { type BatchStates, batchStates, DEFAULT_POSITIONS } from './reference.js';
import { meansOf } from './tally.js';
import {
  batchWindows,
  type CostText,
  checkTexts,
  countWindows,
  hashWindows,
  kindsOf,
  type WindowBatch,
} from './windows.js';

export interface CostsOptions extends CandidateOptions {
  /** Which model the parts are of. The hash must tell weights apart, too, wherever they are. */
  readonly model: CostsResult['model'];
  /** When candidates are dropped; `false` measures all of them on all text. */
  readonly halving?: HalvingOptions | false;
  /** Tokens run at once; 512 when absent. */
  readonly positions?: number;
  /** Positions at the start of each window that the label-free scores leave out; 1 when absent. */
  readonly skipFirst?: number;
  /**
   * A file in which the work is kept while it lasts: when it is stopped, the next call with the same model, texts and
   * settings goes on from there, and gives the same result. It stays when all is done.
   */
  readonly journal?: string;
  /** What to do with a journal of other work; `'error'` when absent. */
  readonly otherJournal?: 'error' | 'restart';
  readonly signal?: AbortSignal;
  /** Counts layers computed, of all candidates on all tokens; the total is an estimate until the last round. */
  readonly onProgress?: OnProgress;
}

/**
 * Measures what every group that a model could have does to it, each alone: KL divergence to the original and change
 * of cross-entropy, by kind of text as well, and two scores that need no labels (see `MeasuredCandidate`).
 *
 * The original's states are computed once for each batch of windows and held while it is worked on; a candidate costs
 * its group and the layers behind it. Candidates that are worse than others of their size on the first windows are
 * dropped (see `HalvingOptions`); they keep what was measured and are marked `coarse`.
 *
 * Memory: that of the parts, and of the states of one batch (layers × positions × hidden × 8 bytes).
 *
 * @throws UsageError `COSTS_OPTIONS`, `COSTS_TEXT`, `COSTS_JOURNAL_OTHER`; EnvironmentError `WRITE_FAILED`;
 *   MetricError `ACTIVATION_NOT_FINITE` naming the layer; InferenceError; the signal's reason
 */
export async function measureCosts(
  parts: ModelParts,
  texts: readonly CostText[],
  options: CostsOptions,
): Promise<CostsResult> {
  const { positions = DEFAULT_POSITIONS, skipFirst = 1 } = options;
  const whole = (value: number, least: number) => Number.isInteger(value) && value >= least;
  if (!whole(positions, 1)) throw badOption('positions', 'a whole number of 1 or more', String(positions));
  if (!whole(skipFirst, 0)) throw badOption('skipFirst', 'a whole number of 0 or more', String(skipFirst));
  checkTexts(texts, skipFirst);
  const candidates = candidateGroups(parts.anatomy, options);
  if (candidates.length === 0) {
    throw badOption(
      'groupSizes',
      'a size that some neighbours can be grouped in',
      'none that fits the model',
    );
  }
  const settings: CostsResult['settings'] = {
    groupSizes: [...(options.groupSizes ?? DEFAULT_GROUP_SIZES)],
    bypasses: options.bypasses === undefined ? null : [...options.bypasses],
    positions,
    skipFirst,
    halving: halvingOf(options.halving),
  };
  const text = texts.map((of) => ({
    kind: of.kind,
    sha256: hashWindows(of),
    windows: of.windows.length,
    tokens: sum(of.windows.map((window) => window.length)),
    sources: (of.sources ?? []).map(({ spec, sha256 }) => ({ spec, sha256 })),
  }));
  const about = { model: options.model, text, settings };
  const key = createHash('sha256').update(JSON.stringify({ about, candidates })).digest('hex');
  const journal =
    options.journal === undefined
      ? undefined
      : await Journal.open(options.journal, {
          key,
          about,
          ...(options.otherJournal === undefined ? {} : { other: options.otherJournal }),
        });
  try {
    const measurement = new Measurement(parts, texts, candidates, settings, journal, options);
    await measurement.run();
    return {
      version: 1,
      model: { ...options.model },
      layers: parts.layers.length,
      hidden: parts.hidden,
      text,
      settings,
      ...measurement.result(),
    };
  } finally {
    await journal?.close();
  }
}

type Found = CostRecord['candidates'][number];

class Measurement {
  readonly #kinds: readonly string[];
  /** By candidate, batch after batch. */
  readonly #found: readonly Found[][];
  /** Of the original, batch after batch. */
  readonly #original: CostRecord['original'][number][] = [];
  #dropped = new Set<number>();

  constructor(
    readonly parts: ModelParts,
    readonly texts: readonly CostText[],
    readonly candidates: readonly CandidateGroup[],
    readonly settings: CostsResult['settings'],
    readonly journal: Journal | undefined,
    readonly options: CostsOptions,
  ) {
    this.#kinds = kindsOf(texts);
    this.#found = candidates.map(() => []);
  }

  async run(): Promise<void> {
    const { halving, positions } = this.settings;
    const cuts = roundEnds(countWindows(this.texts), halving, this.texts.length);
    const together = this.parts.exactBatches;
    const { batches, ends } = batchWindows(this.texts, { positions, together }, cuts);
    const rounds = ends.map((end, round) => batches.slice(ends[round - 1] ?? 0, end));
    let active = [...this.candidates.keys()];
    let done = 0;
    for (const [round, ofRound] of rounds.entries()) {
      const total = done + this.#estimate(active, rounds.slice(round));
      for (const [i, windows] of ofRound.entries()) {
        const batch = (ends[round - 1] ?? 0) + i;
        await this.#batch(batch, windows, active, (indices) => {
          done += tokensOf([windows]) * this.#work(indices);
          this.options.onProgress?.({ phase: 'measuring groups', done, total, unit: 'layers × tokens' });
        });
      }
      if (halving === null || round === rounds.length - 1) return;
      const scores = new Map(active.map((index) => [index, scoreOf(this.#measured(index), halving.by)]));
      const score = (index: number) => scores.get(index) as number;
      const next = survivors(this.candidates, active, score, halving.keep);
      for (const index of active) if (!next.includes(index)) this.#dropped.add(index);
      active = next;
    }
  }

  result(): Pick<CostsResult, 'original' | 'candidates'> {
    return {
      original: this.#kinds.map((kind, index) => {
        const of = this.#original.filter((sums) => sums.kind === index);
        const tokens = sum(of.map((part) => part.tokens));
        return { kind, tokens, crossEntropy: sum(of.map(({ loss }) => loss)) / tokens };
      }),
      candidates: [...this.candidates.keys()].map((index) => this.#measured(index)),
    };
  }

  /** Runs what the journal does not have of one batch. */
  async #batch(
    batch: number,
    windows: WindowBatch,
    active: readonly number[],
    onMeasured: (indices: readonly number[]) => void,
  ): Promise<void> {
    const { signal } = this.options;
    const byFirst = new Map<number, number[]>();
    for (const index of active) {
      const first = this.candidates[index]!.layers[0]!;
      byFirst.set(first, [...(byFirst.get(first) ?? []), index]);
    }
    let states: BatchStates | undefined;
    for (const [place, [first, indices]] of [...byFirst].entries()) {
      signal?.throwIfAborted();
      let record = this.journal?.get(batch, first);
      if (record?.candidates.map(({ candidate }) => candidate).join() !== indices.join()) record = undefined;
      if (record === undefined) {
        states ??= await batchStates(this.parts, windows, signal);
        const of = indices.map((index) => ({ ...this.candidates[index]!, index }));
        const { skipFirst } = this.settings;
        record = await measureFrom(this.parts, of, { batch, first }, windows, states, { skipFirst, signal });
        await this.journal?.add(record);
      }
      for (const found of record.candidates) this.#found[found.candidate]!.push(found);
      // All records of a batch say the same of the original, but for rounding.
      if (place === 0) this.#original.push(...record.original);
      onMeasured(indices);
    }
  }

  #measured(index: number): MeasuredCandidate {
    const { layers, bypass } = this.candidates[index]!;
    const found = this.#found[index]!;
    const { kinds, ...means } = meansOf(
      this.#kinds,
      found.flatMap((part) => part.kinds),
    );
    const positions = sum(found.map((part) => part.positions));
    const dependency = layers.slice(1).map((_, j) => sum(found.map((part) => part.dependency[j]!)));
    return {
      layers: [...layers],
      bypass,
      ...means,
      coarse: this.#dropped.has(index),
      scores: {
        hidden: sum(found.map(({ hidden }) => hidden)) / sum(found.map(({ windows }) => windows)),
        dependency: Math.max(...dependency) / positions,
      },
      kinds: [...kinds],
    };
  }

  /** Layers computed for candidates, as far as they tell how long that takes; the head counts as some layers. */
  #work(indices: readonly number[]): number {
    const layers = this.parts.layers.length;
    return sum(indices.map((index) => layers - this.candidates[index]!.layers[0]! + Math.ceil(layers / 4)));
  }

  /** Work of this and all later rounds; who goes on is not known yet, so an average candidate of each size is taken. */
  #estimate(active: readonly number[], rounds: readonly (readonly WindowBatch[])[]): number {
    const sizes = new Set(active.map((index) => this.candidates[index]!.layers.length));
    const keep = this.settings.halving?.keep ?? 1;
    const bySize = [...sizes].map((size) => {
      const of = active.filter((index) => this.candidates[index]!.layers.length === size);
      const each = this.#work(of) / of.length;
      let count = of.length;
      return sum(
        rounds.map((batches) => {
          const work = tokensOf(batches) * count * each;
          count = keptOf(count, keep);
          return work;
        }),
      );
    });
    return Math.round(sum(bySize));
  }
}

function tokensOf(batches: readonly WindowBatch[]): number {
  return sum(batches.map(({ ids }) => ids.length * ids[0]!.length));
}

function scoreOf({ kl, scores }: MeasuredCandidate, by: RankedBy): number {
  return by === 'kl' ? kl : scores[by];
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

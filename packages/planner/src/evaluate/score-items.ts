import type { OnProgress } from '@cqil/core';
import type { DecoderCache, DecoderSession } from '@cqil/runtime-gpu';
import type { Item, ItemKind } from './items/index.js';
import { summariseRow } from './log-probabilities.js';
import type { Predictor } from './reference.js';
import type { Tokenizer } from './tokenizer.js';

export interface ScoreItemsOptions {
  readonly signal?: AbortSignal;
  readonly onProgress?: OnProgress;
}

export interface ItemScore {
  readonly kind: ItemKind;
  /** Index of the choice that the model finds most likely; the first of equals. */
  readonly chosen: number;
  readonly right: boolean;
  /** Mean ln p of a token of each choice, those left out that all choices begin with. */
  readonly scores: readonly number[];
}

export interface ItemsResult {
  /** In the order in which the kinds come first. */
  readonly kinds: { kind: ItemKind; right: number; total: number }[];
  /** In the order of the items. */
  readonly items: readonly ItemScore[];
}

/**
 * Scores items by the likelihood that a model gives each choice behind the context, not by what it writes: the mean
 * of ln p over the choice's tokens, so that choices of different length can be compared ("Language Models are
 * Few-Shot Learners", arXiv 2005.14165, section 2.4).
 *
 * What the contexts of a kind have in common is run once, each context once, and each choice from the context's
 * cache.
 *
 * @throws what `DecoderSession.forward` throws; the signal's reason
 */
export async function scoreItems(
  decoder: Predictor,
  tokenizer: Tokenizer,
  items: readonly Item[],
  options: ScoreItemsOptions = {},
): Promise<ItemsResult> {
  const prepared = items.map((item) => prepare(tokenizer, item));
  const scored: ItemScore[] = new Array(items.length);
  const kinds: ItemsResult['kinds'] = [];
  let done = 0;
  for (const kind of new Set(items.map((item) => item.kind))) {
    const places = items.flatMap((item, i) => (item.kind === kind ? [i] : []));
    options.signal?.throwIfAborted();
    const shared = await runShared(
      decoder,
      places.map((i) => prepared[i]!.context),
    );
    let right = 0;
    for (const i of places) {
      options.signal?.throwIfAborted();
      const scores = await scoreChoices(decoder, prepared[i]!, shared);
      const chosen = scores.reduce((best, score, at) => (score > scores[best]! ? at : best), 0);
      scored[i] = { kind, chosen, right: chosen === items[i]!.answer, scores };
      if (scored[i].right) right += 1;
      done += 1;
      options.onProgress?.({ phase: 'answering items', done, total: items.length, unit: 'items' });
    }
    kinds.push({ kind, right, total: places.length });
  }
  return { kinds, items: scored };
}

interface Prepared {
  readonly context: readonly number[];
  readonly choices: readonly (readonly number[])[];
}

/**
 * Token ids of the context and of each choice behind it. They are tokenised together, since a tokenizer can join the
 * context's end with the choice's begin. What all choices begin with decides nothing and goes to the context.
 */
function prepare(tokenizer: Tokenizer, { context, choices }: Item): Prepared {
  const wholes = choices.map((choice) => tokenizer.encode(context + choice));
  // One token of each choice at least is left to score.
  const length = Math.min(commonLength(wholes), ...wholes.map((ids) => ids.length - 1));
  if (length > 0) {
    return { context: wholes[0]!.slice(0, length), choices: wholes.map((ids) => ids.slice(length)) };
  }
  // Nothing in common to predict from: the text's begin stands in.
  return { context: [tokenizer.bosId ?? tokenizer.eosId ?? 0], choices: wholes };
}

/** How many ids all begin with. */
function commonLength(rows: readonly (readonly number[])[]): number {
  const [first, ...others] = rows;
  let length = 0;
  while (length < first!.length && others.every((row) => row[length] === first![length])) length += 1;
  return length;
}

interface Shared {
  /** How many tokens of every context it holds. */
  readonly length: number;
  readonly cache?: DecoderCache;
}

/** Fewer tokens in common are not worth a run of their own. */
const LEAST_SHARED = 4;

async function runShared(decoder: Predictor, contexts: readonly (readonly number[])[]): Promise<Shared> {
  // The last token of every context is run with the context, for its logits.
  const shortest = Math.min(...contexts.map((ids) => ids.length - 1));
  const length = Math.min(shortest, commonLength(contexts));
  if (contexts.length < 2 || length < LEAST_SHARED) return { length: 0 };
  const { cache } = await decoder.forward({ inputIds: [contexts[0]!.slice(0, length)], keep: 'last' });
  return { length, cache };
}

async function scoreChoices(decoder: Predictor, item: Prepared, shared: Shared): Promise<number[]> {
  const context = await decoder.forward({
    inputIds: [item.context.slice(shared.length)],
    keep: 'last',
    ...(shared.cache === undefined ? {} : { cache: shared.cache }),
  });
  const scores: number[] = [];
  for (const ids of item.choices) {
    let sum = logProbability(context.logits, 0, ids[0]!);
    if (ids.length > 1) {
      const inputIds = [ids.slice(0, -1)];
      const { logits } = await decoder.forward({ inputIds, cache: context.cache, returnCache: false });
      for (let i = 1; i < ids.length; i++) sum += logProbability(logits, i - 1, ids[i]!);
    }
    scores.push(sum / ids.length);
  }
  return scores;
}

type Logits = Awaited<ReturnType<DecoderSession['forward']>>['logits'];

function logProbability({ data, dims }: Logits, position: number, id: number): number {
  const size = dims[2];
  return data[position * size + id]! - summariseRow(data, position * size, size).logSumExp;
}

import type { OnProgress } from '@cqil/core';
import { type DecoderCache, type DecoderSession, sample, seededRandom } from '@cqil/runtime-gpu';
import type { Tokenizer } from './tokenizer.js';

export interface SelfTextOptions {
  /** About how many tokens to write. */
  readonly tokens: number;
  readonly seed?: number;
  /** Sequences written at the same time; 8 when absent. */
  readonly sequences?: number;
  /** 1 when absent: the model's own distribution. */
  readonly temperature?: number;
  readonly signal?: AbortSignal;
  readonly onProgress?: OnProgress;
}

/**
 * How the sequences begin, so that they are of different kinds: what a model writes from nothing is of one
 * kind mostly.
 */
const OPENINGS = [
  'The',
  'Once upon a time',
  'def main():',
  'Dear Sir,',
  '1. First',
  'Question: What',
  'import java',
  'In 1923,',
  '# Introduction',
  '"I don\'t',
  'Abstract: We',
  '<html>',
  'Le président',
  'Ingredients:',
  '{"name":',
  'Theorem 1.',
];

/**
 * Text that the model writes itself, for calibration where there is no other: sequences of one length,
 * sampled, repeatable by the seed.
 *
 * All sequences begin with the same number of tokens, so that no padding is needed and every graph can do it.
 *
 * @returns token ids `[sequences, tokens / sequences]`
 */
export async function writeText(
  decoder: DecoderSession,
  tokenizer: Tokenizer,
  options: SelfTextOptions,
): Promise<number[][]> {
  const { sequences = 8, temperature = 1, seed = 1, signal } = options;
  const length = Math.max(2, Math.ceil(options.tokens / sequences));
  const rows = openings(tokenizer, sequences, length);
  const random = seededRandom(seed);
  const total = rows.length * length;
  let next = rows.map((row) => [...row]);
  let cache: DecoderCache | undefined;
  while (rows[0]!.length < length) {
    signal?.throwIfAborted();
    const step = await decoder.forward({
      inputIds: next,
      keep: 'last',
      ...(cache === undefined ? {} : { cache }),
    });
    cache = step.cache;
    const [, , vocabulary] = step.logits.dims;
    next = rows.map((row, i) => {
      const logits = step.logits.data.subarray(i * vocabulary, (i + 1) * vocabulary);
      const id = sample(logits, { temperature }, random);
      row.push(id);
      return [id];
    });
    options.onProgress?.({
      phase: 'writing text',
      done: rows.length * rows[0]!.length,
      total,
      unit: 'tokens',
    });
  }
  return rows;
}

/** The beginnings, cut to the length of the shortest. */
function openings(tokenizer: Tokenizer, count: number, length: number): number[][] {
  const encoded = Array.from({ length: count }, (_, i) => {
    const ids = tokenizer.encode(OPENINGS[i % OPENINGS.length]!);
    const begins = tokenizer.bosId === undefined || ids[0] === tokenizer.bosId;
    return begins ? ids : [tokenizer.bosId!, ...ids];
  });
  const shortest = Math.min(length, ...encoded.map((ids) => ids.length));
  return encoded.map((ids) => ids.slice(0, Math.max(1, shortest)));
}

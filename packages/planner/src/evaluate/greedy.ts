import type { OnProgress } from '@cqil/core';
import { type DecoderSession, generate } from '@cqil/runtime-gpu';
import type { TextSet } from './text-sets.js';
import type { Tokenizer } from './tokenizer.js';

export interface GreedyOptions {
  /** Tokens to generate for each prompt; 64 when absent. */
  readonly length?: number;
  readonly signal?: AbortSignal;
  readonly onProgress?: OnProgress;
}

export interface GenerationAgreement {
  readonly prompts: number;
  /** Tokens generated for each prompt. */
  readonly length: number;
  /** Tokens that are equal before the first that differs: mean over the prompts; `length` where none differs. */
  readonly agreed: number;
}

/** What two models make of one prompt, as text. */
export interface GenerationSample {
  readonly prompt: string;
  readonly original: string;
  readonly planned: string;
}

/**
 * Prompts from a set: the beginnings of windows, in turn from all kinds and spread over each.
 *
 * @param length tokens of a prompt; a window gives what it has
 * @returns token ids, fewer prompts than asked where there are fewer windows
 */
export function promptsFrom(
  set: TextSet,
  options: { readonly count: number; readonly length: number },
): number[][] {
  const share = Math.ceil(options.count / set.kinds.length);
  const byKind = set.kinds.map(({ windows }) => {
    const count = Math.min(share, windows.length);
    return Array.from({ length: count }, (_, i) => windows[Math.floor((i * windows.length) / count)]!);
  });
  return Array.from({ length: share }, (_, i) => byKind.flatMap((windows) => windows.slice(i, i + 1)))
    .flat()
    .slice(0, options.count)
    .map((ids) => ids.slice(0, options.length));
}

/**
 * Continues every prompt greedily. Goes on after an end token, so that all continuations have one length and two
 * models are compared at as many tokens whatever they write.
 *
 * @returns the new token ids of each prompt
 * @throws what `generate` throws; the signal's reason
 */
export async function continueGreedily(
  decoder: DecoderSession,
  prompts: readonly (readonly number[])[],
  options: GreedyOptions = {},
): Promise<number[][]> {
  const { length = 64, signal } = options;
  const total = prompts.length * length;
  let done = 0;
  const continuations: number[][] = [];
  for (const promptIds of prompts) {
    const { ids } = await generate(decoder, {
      promptIds,
      maxTokens: length,
      ...(signal === undefined ? {} : { signal }),
    });
    continuations.push(ids);
    done += length;
    options.onProgress?.({ phase: 'generating', done, total, unit: 'tokens' });
  }
  return continuations;
}

/** How long two models' continuations of the same prompts stay the same. */
export function agreement(
  original: readonly (readonly number[])[],
  planned: readonly (readonly number[])[],
): GenerationAgreement {
  const length = Math.max(0, ...original.map((ids) => ids.length));
  const agreed = original.map((ids, i) => {
    const first = ids.findIndex((id, at) => id !== planned[i]?.[at]);
    return first === -1 ? ids.length : first;
  });
  const sum = agreed.reduce((a, b) => a + b, 0);
  return { prompts: original.length, length, agreed: original.length === 0 ? 0 : sum / original.length };
}

/** Prompts and continuations as text, each continuation up to its end token. */
export function generationSamples(
  tokenizer: Tokenizer,
  prompts: readonly (readonly number[])[],
  original: readonly (readonly number[])[],
  planned: readonly (readonly number[])[],
): GenerationSample[] {
  const text = (ids: readonly number[]) => {
    const end = tokenizer.eosId === undefined ? -1 : ids.indexOf(tokenizer.eosId);
    return tokenizer.decode(end === -1 ? ids : ids.slice(0, end), { skipSpecialTokens: true });
  };
  return prompts.map((prompt, i) => ({
    prompt: tokenizer.decode(prompt, { skipSpecialTokens: true }),
    original: text(original[i] ?? []),
    planned: text(planned[i] ?? []),
  }));
}

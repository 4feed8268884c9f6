import { resolve } from 'node:path';
import { UsageError } from '@cqil/core';
import { openDecoder, PrefixCache, type SessionOptions, type SpeculateOptions } from '@cqil/runtime-gpu';
import { z } from 'zod';
import { Vocabulary } from '../text/vocabulary.js';
import { cacheBytesPerToken, modelFiles, weightBytes } from './memory.js';
import { configSchema, contextLengthOf, graphOf, read } from './model-folder.js';

/** A faster model of the same tokenizer: one by a plan, or of coarser weights. */
export interface DraftModel {
  readonly folder: string;
  /** The graph, relative to the folder; when absent the only one, or `onnx/model.onnx` of several. */
  readonly graph?: string;
  readonly session?: SessionOptions;
  /**
   * It drafts while the model computes, which needs processors that the model's threads do not use; otherwise before each
   * step, with all processors that the model has.
   */
  readonly asynchronous?: boolean;
}

/** Where a model's drafts come from, and what has to be freed with it. */
export interface Drafts {
  readonly speculate: SpeculateOptions;
  /** Tokens of prompt and answer that they can be made behind. */
  readonly contextLength: number;
  /** About the memory that they take. */
  readonly bytes: number;
  dispose(): Promise<void>;
}

export interface DraftedModel {
  readonly folder: string;
  /** What is opened as a decoder. */
  readonly graph: string;
  readonly vocabulary: Vocabulary;
}

/**
 * Opens what drafts for a model; one that is its own drafter has none.
 *
 * @throws UsageError `DRAFT_MODEL_MISMATCH` for another tokenizer; what `openDecoder` throws
 */
export async function openDrafts(
  model: DraftedModel,
  draft: 'prompt-lookup' | DraftModel | undefined,
): Promise<Drafts | undefined> {
  if (draft === undefined) return undefined;
  if (draft === 'prompt-lookup') {
    const none = { bytes: 0, dispose: async () => {} };
    return { speculate: { drafter: 'prompt' }, contextLength: Number.POSITIVE_INFINITY, ...none };
  }
  const { folder, graph } = await placeOf(draft);
  if (graph === model.graph) return undefined;
  const config = await read(folder, 'config.json', configSchema);
  const vocabulary = new Vocabulary(await read(folder, 'tokenizer.json', z.looseObject({})));
  // Drafts are tokens: both models must mean the same by a number.
  if (!vocabulary.equals(model.vocabulary)) {
    throw new UsageError(
      'DRAFT_MODEL_MISMATCH',
      `The model in ${folder} cannot draft for the one in ${model.folder}.`,
      {
        expected: 'a model of the same tokenizer, such as one that was made of it by a plan',
        found: `tokenizers of ${model.vocabulary.size} and ${vocabulary.size} tokens that are not the same`,
        hint: 'draft with another model, or by prompt lookup',
      },
    );
  }
  const weights = weightBytes(await modelFiles(folder, graph));
  const drafter = await openDecoder(graph, draft.session ?? {});
  const cache = new PrefixCache();
  return {
    speculate: { drafter, cache, asynchronous: draft.asynchronous === true },
    contextLength: contextLengthOf(config) ?? Number.POSITIVE_INFINITY,
    get bytes() {
      return weights + cache.ids.length * cacheBytesPerToken(config);
    },
    async dispose() {
      await drafter.dispose();
      cache.dispose();
    },
  };
}

/**
 * About the bytes that drafts take for the model that `graph` is, with caches of `tokens` tokens.
 *
 * @throws as `openDrafts`
 */
export async function draftsMemory(
  graph: string,
  draft: 'prompt-lookup' | DraftModel | undefined,
  tokens: number,
): Promise<number> {
  if (draft === undefined || draft === 'prompt-lookup') return 0;
  const place = await placeOf(draft);
  if (place.graph === graph) return 0;
  const config = await read(place.folder, 'config.json', configSchema);
  return weightBytes(await modelFiles(place.folder, place.graph)) + tokens * cacheBytesPerToken(config);
}

async function placeOf(draft: DraftModel): Promise<{ folder: string; graph: string }> {
  const folder = resolve(draft.folder);
  return { folder, graph: await graphOf(folder, draft.graph) };
}

import { resolve } from 'node:path';
import { UsageError } from '@cqil/core';
import { openDecoder, PrefixCache, type SessionOptions, type SpeculateOptions } from '@cqil/runtime-gpu';
import { z } from 'zod';
import { cacheBytesPerToken, modelFiles, weightBytes } from './memory.js';
import { configSchema, graphOf, read, readText } from './model-folder.js';

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
  /** About the memory that they take. */
  readonly bytes: number;
  dispose(): Promise<void>;
}

/**
 * Opens what drafts for the model in `root`; a model that is its own drafter has none.
 *
 * @throws UsageError `DRAFT_MODEL_MISMATCH` for another tokenizer; what `openDecoder` throws
 */
export async function openDrafts(
  root: string,
  draft: 'prompt-lookup' | DraftModel | undefined,
): Promise<Drafts | undefined> {
  if (draft === undefined) return undefined;
  if (draft === 'prompt-lookup') {
    return { speculate: { drafter: 'prompt' }, bytes: 0, dispose: async () => {} };
  }
  const folder = resolve(draft.folder);
  if (folder === root) return undefined;
  const graph = await graphOf(folder, draft.graph);
  const config = await read(folder, 'config.json', configSchema);
  await checkTokenizer(root, folder);
  const weights = weightBytes(await modelFiles(folder, graph));
  const drafter = await openDecoder(graph, draft.session ?? {});
  const cache = new PrefixCache();
  return {
    speculate: { drafter, cache, asynchronous: draft.asynchronous === true },
    get bytes() {
      return weights + cache.ids.length * cacheBytesPerToken(config);
    },
    async dispose() {
      cache.dispose();
      await drafter.dispose();
    },
  };
}

/** About the bytes that drafts for the model in `root` take, with caches of `tokens` tokens. @throws as `openDrafts` */
export async function draftsMemory(
  root: string,
  draft: 'prompt-lookup' | DraftModel | undefined,
  tokens: number,
): Promise<number> {
  if (draft === undefined || draft === 'prompt-lookup') return 0;
  const folder = resolve(draft.folder);
  if (folder === root) return 0;
  const config = await read(folder, 'config.json', configSchema);
  const files = await modelFiles(folder, await graphOf(folder, draft.graph));
  return weightBytes(files) + tokens * cacheBytesPerToken(config);
}

const tokenizerSchema = z.looseObject({ model: z.looseObject({ vocab: z.unknown() }) });

/** Drafts are tokens: both models must mean the same by a number. */
async function checkTokenizer(root: string, folder: string): Promise<void> {
  const texts = await Promise.all([root, folder].map((place) => readText(place, 'tokenizer.json')));
  if (texts[0] === texts[1]) return;
  const [own, theirs] = await Promise.all(
    [root, folder].map(async (place) => (await read(place, 'tokenizer.json', tokenizerSchema)).model.vocab),
  );
  if (JSON.stringify(own) === JSON.stringify(theirs)) return;
  throw new UsageError(
    'DRAFT_MODEL_MISMATCH',
    `The model in ${folder} cannot draft for the one in ${root}.`,
    {
      expected: 'a model of the same tokenizer, such as one that was made of it by a plan',
      found: 'tokenizers of different vocabularies',
      hint: 'draft with another model, or by prompt lookup',
    },
  );
}

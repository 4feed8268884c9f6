import { stat } from 'node:fs/promises';
import { basename, resolve } from 'node:path';
import { CqilError, UsageError } from '@cqil/core';
import {
  BatchedDecoder,
  checkSpeculation,
  type DecoderSession,
  InferenceError,
  openDecoder,
  type SessionOptions,
} from '@cqil/runtime-gpu';
import { z } from 'zod';
import { Grammars } from '../constrain/grammars.js';
import { ModelLostError, type TextModel, type TextPiece, type TextRequest } from '../model.js';
import { ThreadedTokenizer } from '../text/tokenizer.js';
import { Vocabulary } from '../text/vocabulary.js';
import { ChatTemplate, templateSchema } from './chat-template.js';
import { type DraftModel, type Drafts, draftsMemory, openDrafts } from './drafts.js';
import { cacheBytesPerToken, modelFiles, weightBytes } from './memory.js';
import {
  configSchema,
  contextLengthOf,
  graphOf,
  idsSchema,
  notFound,
  read,
  readText,
} from './model-folder.js';
import { pieces, type RuntimeModel } from './pieces.js';
import { PrefixPool } from './prefix-pool.js';

export interface TextModelOptions {
  /** The name by which requests ask for the model; the folder's name when absent. */
  readonly id?: string;
  /** The graph, relative to the folder; when absent the only one, or `onnx/model.onnx` of several. */
  readonly graph?: string;
  /** The most tokens that prompt and answer have together; the config's when absent. */
  readonly contextLength?: number;
  readonly session?: SessionOptions;
  /**
   * Requests that are answered at the same time, their steps joined into one; 8 when absent. A graph that cannot take
   * several sequences (no `GroupQueryAttention`) answers one after the other.
   */
  readonly parallel?: number;
  /** Caches of earlier requests that are kept for prompts that begin alike; 4 when absent. */
  readonly keptPrefixes?: number;
  /**
   * A request that has the model to itself drafts tokens, and checks several in one step where that pays.
   * `prompt-lookup` drafts what followed its last tokens before, in prompt or answer; a model, what it would say. The
   * answer stays the same, but for draws: a model that drafts before each step makes other draws of the same
   * distribution.
   */
  readonly draft?: 'prompt-lookup' | DraftModel;
}

export type { DraftModel };

const PARALLEL = 8;
const KEPT_PREFIXES = 4;
/** Tokens of each sequence that an estimate makes room for, where the context has as many. */
const USUAL_TOKENS = 256;
/** After these nothing works any more: a device's thread is gone, or the session itself. */
const LOST: ReadonlySet<string> = new Set(['EXECUTOR_DEVICE_LOST', 'SESSION_DISPOSED']);

/** A model that runs on this machine; `dispose` frees it. */
export interface LocalTextModel extends TextModel, AsyncDisposable {
  readonly bytes: number;
  dispose(): Promise<void>;
}

const token = z.union([z.string(), z.looseObject({ content: z.string() })]).nullish();
const tokenizerSchema = z.looseObject({
  chat_template: templateSchema.nullish(),
  bos_token: token,
  eos_token: token,
});

/**
 * Opens a model folder, as `cqil rewrite` or `cqil import` writes it: a graph, `config.json`, `tokenizer.json`
 * and `tokenizer_config.json`; or one that `cqil partition` wrote, whose parts run on their devices.
 *
 * Generating throws a `ModelLostError` once the model cannot go on.
 *
 * @throws UsageError `MODEL_NOT_FOUND`, `DRAFT_MODEL_MISMATCH`; ModelFormatError `MODEL_CONFIG_INVALID`; InferenceError,
 *   `SPECULATION_UNSUPPORTED` among them
 * @example
 * const model = await openTextModel('./models/SmolLM2-135M-Instruct', { id: 'smollm2' });
 */
export async function openTextModel(folder: string, options: TextModelOptions = {}): Promise<LocalTextModel> {
  const root = resolve(folder);
  const graph = await graphOf(root, options.graph);
  const config = await read(root, 'config.json', configSchema);
  const generation = await read(
    root,
    'generation_config.json',
    z.looseObject({ eos_token_id: idsSchema }),
    {},
  );
  const tokenizerConfig = await read(root, 'tokenizer_config.json', tokenizerSchema);
  const tokenizerJson = await read(root, 'tokenizer.json', z.looseObject({}));
  const chatTemplate = tokenizerConfig.chat_template ?? (await readText(root, 'chat_template.jinja'));

  const tokenizer = new ThreadedTokenizer(tokenizerJson, tokenizerConfig);
  const vocabulary = new Vocabulary(tokenizerJson);
  const template = ChatTemplate.of(chatTemplate, {
    bos_token: contentOf(tokenizerConfig.bos_token),
    eos_token: contentOf(tokenizerConfig.eos_token),
  });
  const eosIds = [generation.eos_token_id ?? config.eos_token_id ?? []].flat();
  const contextLength = options.contextLength ?? contextLengthOf(config);
  if (contextLength === undefined) {
    throw new UsageError('CONTEXT_LENGTH_UNKNOWN', `${root} does not say how long its context is.`, {
      expected: '`max_position_embeddings` in config.json',
      found: 'none',
      hint: 'give the option `contextLength`',
    });
  }
  const { mtimeMs } = await stat(graph).catch((cause: unknown) => {
    throw notFound(graph, cause);
  });
  const weights = weightBytes(await modelFiles(root, graph));
  const perToken = cacheBytesPerToken(config);
  const drafts = await openDrafts({ folder: root, graph, vocabulary }, options.draft);
  const decoder = await openDecoder(graph, options.session ?? {}).catch(async (cause: unknown) => {
    await drafts?.dispose();
    throw cause;
  });

  const { parallel = PARALLEL, keptPrefixes = KEPT_PREFIXES } = options;
  const batched = await joined(decoder, parallel, keptPrefixes, drafts).catch(async (cause: unknown) => {
    await Promise.all([decoder.dispose(), drafts?.dispose()]);
    throw cause;
  });
  const prefixes = new PrefixPool(keptPrefixes);

  const vocabularySize = Math.max(config.vocab_size ?? 0, vocabulary.size);
  const grammars = new Grammars(vocabulary, vocabularySize, eosIds);
  let disposed: Promise<unknown> | undefined;
  const dispose = async () => {
    disposed ??= (async () => {
      prefixes.dispose();
      batched?.dispose();
      await Promise.all([decoder.dispose(), drafts?.dispose(), tokenizer.dispose()]);
    })();
    await disposed;
  };
  const runtime: RuntimeModel = {
    decoder: batched ?? decoder,
    prefixes,
    decode: (ids) => tokenizer.decode(ids, false),
    vocabulary,
    grammars,
    eosIds,
  };
  let running = 0;
  async function* generated(request: TextRequest): AsyncGenerator<TextPiece, void> {
    running += 1;
    try {
      // Several tokens of one sequence are a step of their own, which holds up the others.
      const alone =
        running === 1 && request.promptIds.length + request.maxTokens <= (drafts?.contextLength ?? 0);
      yield* pieces(runtime, request, { speculate: alone ? drafts?.speculate : undefined });
    } catch (cause) {
      throw cause instanceof InferenceError && LOST.has(cause.code)
        ? new ModelLostError(`The model in ${root} broke down.`, { cause })
        : cause;
    } finally {
      running -= 1;
    }
  }
  return {
    id: options.id ?? basename(root),
    created: Math.floor(mtimeMs / 1000),
    contextLength,
    vocabularySize,
    get bytes() {
      return weights + (batched?.tokens ?? prefixes.tokens) * perToken + (drafts?.bytes ?? 0);
    },
    logprobs: true,
    concurrency: batched === undefined ? 1 : parallel,
    ...(template?.toolFormat === undefined ? {} : { toolFormat: template.toolFormat }),
    encodeChat(messages, chat) {
      if (template === undefined) throw new Error('the model has no chat template.');
      // The template has put the special tokens where they belong.
      return tokenizer.encode(template.render(messages, chat), { special: false, signal: chat?.signal });
    },
    encode: (text, { special = true, signal } = {}) => tokenizer.encode(text, { special, signal }),
    decode: (ids, { special = false } = {}) => tokenizer.decode(ids, special),
    async checkSchema(schema) {
      if (eosIds.length === 0) throw new Error('the model has no token that ends an answer.');
      await grammars.compile(schema);
    },
    generate: generated,
    dispose,
    [Symbol.asyncDispose]: dispose,
  };
}

/**
 * About the memory that a model takes when it is open, in bytes, from the sizes of its files: weights, tokenizer, and
 * caches of some hundred tokens for each request that it may answer at the same time. Opens nothing.
 *
 * @throws UsageError `MODEL_NOT_FOUND`; ModelFormatError `MODEL_CONFIG_INVALID`
 */
export async function textModelMemory(folder: string, options: TextModelOptions = {}): Promise<number> {
  const root = resolve(folder);
  const config = await read(root, 'config.json', configSchema);
  const { parallel = PARALLEL, keptPrefixes = KEPT_PREFIXES } = options;
  const context = options.contextLength ?? contextLengthOf(config);
  const tokens = (parallel + keptPrefixes) * Math.min(context ?? USUAL_TOKENS, USUAL_TOKENS);
  const graph = await graphOf(root, options.graph);
  return (
    weightBytes(await modelFiles(root, graph)) +
    tokens * cacheBytesPerToken(config) +
    (await draftsMemory(graph, options.draft, USUAL_TOKENS))
  );
}

/** `undefined` where sequences cannot go through the model together. */
async function joined(
  decoder: DecoderSession,
  parallel: number,
  keptPrefixes: number,
  drafts: Drafts | undefined,
): Promise<BatchedDecoder | undefined> {
  if (drafts !== undefined) checkSpeculation(decoder, drafts.speculate);
  if (parallel === 1) return undefined;
  let batched: BatchedDecoder;
  try {
    batched = await BatchedDecoder.over(decoder, { slots: parallel + keptPrefixes });
  } catch (error) {
    if (error instanceof CqilError && error.code === 'BATCH_UNSUPPORTED') return undefined;
    throw error;
  }
  if (batched.joins) return batched;
  batched.dispose();
  return undefined;
}

function contentOf(special: z.infer<typeof token>): string {
  return typeof special === 'string' ? special : (special?.content ?? '');
}

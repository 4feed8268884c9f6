import { readdir, readFile, stat } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import { CqilError, ModelFormatError, UsageError } from '@cqil/core';
import {
  BatchedDecoder,
  type DecoderSession,
  InferenceError,
  isPartition,
  openDecoder,
  type SessionOptions,
} from '@cqil/runtime-gpu';
import { z } from 'zod';
import { Grammars } from '../constrain/grammars.js';
import { ModelLostError, type TextModel, type TextPiece, type TextRequest } from '../model.js';
import { ThreadedTokenizer } from '../text/tokenizer.js';
import { Vocabulary } from '../text/vocabulary.js';
import { ChatTemplate, templateSchema } from './chat-template.js';
import { cacheBytesPerToken, modelFiles, weightBytes } from './memory.js';
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
   * `prompt-lookup`: a request that has the model to itself drafts what followed its last tokens before, in prompt or
   * answer, and checks several tokens in one step where that pays. The answer stays the same.
   */
  readonly draft?: 'prompt-lookup';
}

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

const ids = z.union([z.number().int(), z.array(z.number().int())]).nullish();
const configSchema = z.looseObject({
  vocab_size: z.number().int().positive().nullish(),
  max_position_embeddings: z.number().int().positive().nullish(),
  n_positions: z.number().int().positive().nullish(),
  eos_token_id: ids,
});
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
 * @throws UsageError `MODEL_NOT_FOUND`; ModelFormatError `MODEL_CONFIG_INVALID`; InferenceError
 * @example
 * const model = await openTextModel('./models/SmolLM2-135M-Instruct', { id: 'smollm2' });
 */
export async function openTextModel(folder: string, options: TextModelOptions = {}): Promise<LocalTextModel> {
  const root = resolve(folder);
  const graph = await graphOf(root, options.graph);
  const config = await read(root, 'config.json', configSchema);
  const generation = await read(root, 'generation_config.json', z.looseObject({ eos_token_id: ids }), {});
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
  const contextLength = options.contextLength ?? config.max_position_embeddings ?? config.n_positions;
  if (contextLength === undefined || contextLength === null) {
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
  const decoder = await openDecoder(graph, options.session ?? {});

  const { parallel = PARALLEL, keptPrefixes = KEPT_PREFIXES } = options;
  const batched = await joined(decoder, parallel, keptPrefixes);
  const prefixes = new PrefixPool(keptPrefixes);

  const vocabularySize = Math.max(config.vocab_size ?? 0, vocabulary.size);
  const grammars = new Grammars(vocabulary, vocabularySize, eosIds);
  let disposed: Promise<unknown> | undefined;
  const dispose = async () => {
    disposed ??= (async () => {
      prefixes.dispose();
      batched?.dispose();
      await Promise.all([decoder.dispose(), tokenizer.dispose()]);
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
      yield* pieces(runtime, request, { draft: options.draft !== undefined && running === 1 });
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
      return weights + (batched?.tokens ?? prefixes.tokens) * perToken;
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
  const context = options.contextLength ?? config.max_position_embeddings ?? config.n_positions;
  const tokens = (parallel + keptPrefixes) * Math.min(context ?? USUAL_TOKENS, USUAL_TOKENS);
  const files = await modelFiles(root, await graphOf(root, options.graph));
  return weightBytes(files) + tokens * cacheBytesPerToken(config);
}

/** `undefined` where sequences cannot go through the model together. */
async function joined(
  decoder: DecoderSession,
  parallel: number,
  keptPrefixes: number,
): Promise<BatchedDecoder | undefined> {
  if (parallel === 1) return undefined;
  let batched: BatchedDecoder;
  try {
    batched = await BatchedDecoder.over(decoder, { slots: parallel + keptPrefixes });
  } catch (error) {
    if (error instanceof CqilError && error.code === 'BATCH_UNSUPPORTED') return undefined;
    await decoder.dispose();
    throw error;
  }
  if (batched.joins) return batched;
  batched.dispose();
  return undefined;
}

function contentOf(special: z.infer<typeof token>): string {
  return typeof special === 'string' ? special : (special?.content ?? '');
}

async function readText(root: string, name: string): Promise<string | undefined> {
  try {
    return await readFile(join(root, name), 'utf8');
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw cause;
  }
}

/** The parsed file, or what stands for it where it is missing. */
async function read<T>(root: string, name: string, schema: z.ZodType<T>, missing?: T): Promise<T> {
  const text = await readText(root, name);
  if (text === undefined) {
    if (missing !== undefined) return missing;
    throw notFound(join(root, name));
  }
  try {
    return schema.parse(JSON.parse(text));
  } catch (cause) {
    throw new ModelFormatError('MODEL_CONFIG_INVALID', `${join(root, name)} is not what it should be.`, {
      found: cause instanceof Error ? cause.message : String(cause),
      hint: 'fetch the file again, or repair it',
      cause,
    });
  }
}

/** What is opened as a decoder: a partition's folder as a whole, unless a graph is named. */
async function graphOf(root: string, named: string | undefined): Promise<string> {
  if (named === undefined && (await isPartition(root))) return root;
  return join(root, named ?? (await onlyGraph(root)));
}

/** Models that were rewritten or imported hold one graph; its name tells its dtype. */
async function onlyGraph(root: string): Promise<string> {
  const names = async (folder: string) =>
    (await readdir(join(root, folder)).catch(() => []))
      .filter((name) => name.endsWith('.onnx'))
      .map((name) => join(folder, name));
  const graphs = [...(await names('onnx')), ...(await names('.'))];
  const [only] = graphs;
  const usual = join('onnx', 'model.onnx');
  if (graphs.includes(usual)) return usual;
  if (only !== undefined && graphs.length === 1) return only;
  throw new UsageError(
    'MODEL_NOT_FOUND',
    `${root} holds ${graphs.length === 0 ? 'no graph' : 'several graphs'}.`,
    {
      expected: `one .onnx file, or ${usual}`,
      found: graphs.join(', ') || 'none',
      hint: 'check the folder, or name the graph by the option `graph`',
    },
  );
}

function notFound(file: string, cause?: unknown): UsageError {
  return new UsageError('MODEL_NOT_FOUND', `There is no ${file}.`, {
    expected: 'a model folder with a graph, config.json, tokenizer.json and tokenizer_config.json',
    found: 'no such file',
    hint: 'check the folder',
    ...(cause === undefined ? {} : { cause }),
  });
}

import type { StepModel } from '../decoder/step-model.js';
import { checkSpeculation, type SpeculateOptions } from './drafts/options.js';
import { type SpeculationStatistics, Speculator } from './drafts/speculator.js';
import { Logprobs, type TokenLogprob } from './logprobs.js';
import type { PrefixCache } from './prefix-cache.js';
import { checkSampling, requireOption, type SamplingOptions } from './sampling.js';
import { SequenceReader } from './sequence-reader.js';
import type { TokenConstraint } from './shaping.js';
import { type ChosenToken, TokenChooser } from './token-chooser.js';

export interface GenerateOptions extends SamplingOptions {
  readonly promptIds: readonly number[];
  /** The most tokens to generate, the end token counted. */
  readonly maxTokens: number;
  /** Tokens that end the text. */
  readonly eosIds?: readonly number[];
  /** Makes sampling repeatable; 0 when absent. */
  readonly seed?: number;
  /** Of `generate`: called with every new token as soon as it is chosen, an end token included. */
  readonly onToken?: (id: number) => void;
  readonly signal?: AbortSignal;
  /** Keeps the model's cache between generations, so that what prompts share is read once. */
  readonly cache?: PrefixCache;
  /**
   * Hands out log-probabilities with each token: its own and so many of the most likely tokens' (0: its own alone).
   * They are those of the model's own distribution, before temperature, penalties, bias and constraint.
   */
  readonly logprobs?: number;
  /** Log-probabilities of the prompt's tokens, too; the whole prompt is then read anew. */
  readonly promptLogprobs?: boolean;
  /** Which tokens may come next. */
  readonly constraint?: TokenConstraint;
  /** Drafts tokens and checks several in one pass. */
  readonly speculate?: SpeculateOptions;
}

/** A new token. */
export interface GeneratedToken extends ChosenToken {
  /** With the option `promptLogprobs`, on the first. */
  readonly promptLogprobs?: readonly PromptToken[];
  /** With the option `speculate`: what came of drafts up to here. */
  readonly speculation?: SpeculationStatistics;
  /** Set on the last. `stop`: it is an end token. `length`: it is the last of `maxTokens`. */
  readonly finishReason?: 'stop' | 'length';
}

/** A token of the prompt; the first has no probability, as nothing comes before it. */
export interface PromptToken {
  readonly id: number;
  readonly logprob?: number;
  readonly top?: readonly TokenLogprob[];
}

export interface Generation {
  /** The new tokens, an end token included. */
  readonly ids: number[];
  /** `stop`: an end token came. `length`: `maxTokens` were generated. */
  readonly finishReason: 'stop' | 'length';
  /** With the option `logprobs`: the new tokens. */
  readonly logprobs?: readonly ChosenToken[];
  /** With the option `promptLogprobs`. */
  readonly promptLogprobs?: readonly PromptToken[];
  /** With the option `cache`: tokens of the prompt that were in it already. */
  readonly cachedTokens?: number;
  /** With the option `speculate`. */
  readonly speculation?: SpeculationStatistics;
}

/** Positions that room is made for behind the prompt at first; more is made when it is needed. */
const ROOM_AHEAD = 4096;
/** Logits of a prompt that are in memory at the same time, as numbers. */
const LOGITS_AT_ONCE = 1 << 21;
/** Milliseconds that a prompt's logits are worked on before others have a turn of the event loop. */
const TURN_MS = 5;
/** Tokens that are read before the size of the vocabulary is known. */
const FIRST_CHUNK = 16;

/**
 * Continues a prompt, token by token, greedily or by sampling.
 *
 * Leaving the loop frees what the generation holds; a step of the model that runs is waited for.
 *
 * With `speculate` the tokens are chosen as without: by the same logits, greedily, or with the same distribution.
 * Drafts from the prompt, and those that a model makes beside, leave even the draws of a seed as they are. With a model that
 * drafts before each pass the draws differ from those without one; given a seed they still repeat. "The same logits" is up to rounding: ONNX Runtime may use
 * other kernels for several positions than for one, whose results differ in the last bits, so that two tokens
 * that are all but equally likely may change places. `speculation.ties` counts where that could be.
 *
 * @returns tokens as they are chosen; at the end the whole
 * @throws the signal's reason when aborted, after at most one step of the model; InferenceError
 *   `SAMPLING_INVALID`, `NO_TOKEN_LEFT` (all are banned, forbidden or no numbers), `SPECULATION_UNSUPPORTED`, and
 *   what `DecoderSession.forward` throws.
 * @example
 * ```ts
 * for await (const { id } of generateTokens(decoder, { promptIds, maxTokens: 100 })) {
 *   process.stdout.write(tokenizer.decode([id]));
 * }
 * ```
 */
export async function* generateTokens(
  decoder: StepModel,
  options: Omit<GenerateOptions, 'onToken'>,
): AsyncGenerator<GeneratedToken, Generation, void> {
  check(decoder, options);
  const { promptIds, maxTokens, signal } = options;
  const ends = new Set(options.eosIds ?? []);
  const capacity = promptIds.length + Math.min(maxTokens, ROOM_AHEAD);
  const reader = new SequenceReader(decoder, { capacity, kept: options.cache, signal });
  const chosen: ChosenToken[] = [];
  const finish = (finishReason: 'stop' | 'length', more: Partial<Generation>): Generation => ({
    ids: chosen.map(({ id }) => id),
    finishReason,
    ...(options.logprobs === undefined ? {} : { logprobs: chosen }),
    ...more,
  });
  if (maxTokens === 0 && !options.promptLogprobs) return finish('length', {});

  let speculator: Speculator | undefined;
  try {
    signal?.throwIfAborted();
    const cachedTokens = options.promptLogprobs ? 0 : reader.resume(promptIds);
    const chooser = new TokenChooser(options);
    if (options.speculate !== undefined) {
      const { history } = chooser;
      const { seed } = options;
      const generation = {
        model: decoder,
        promptIds,
        sampling: options,
        seed,
        history,
        ends,
        capacity,
        signal,
      };
      speculator = new Speculator(options.speculate, generation);
      speculator.begin();
    }
    const { last, tokens: promptLogprobs } = await readPrompt(reader, options);
    const vocabulary = last.length;
    const context = [...promptIds];
    const more = (): Partial<Generation> => ({
      ...(promptLogprobs === undefined ? {} : { promptLogprobs }),
      ...(options.cache === undefined ? {} : { cachedTokens }),
      ...(speculator === undefined ? {} : { speculation: speculator.statistics }),
    });
    if (maxTokens === 0) return finish('length', more());

    let next = [chooser.choose(last)];
    for (;;) {
      for (const token of next) {
        signal?.throwIfAborted();
        context.push(token.id);
        chosen.push(token);
        const finishReason = ends.has(token.id) ? 'stop' : chosen.length === maxTokens ? 'length' : undefined;
        yield {
          ...token,
          ...(promptLogprobs !== undefined && chosen.length === 1 ? { promptLogprobs } : {}),
          ...(speculator === undefined ? {} : { speculation: speculator.statistics }),
          ...(finishReason === undefined ? {} : { finishReason }),
        };
        if (finishReason !== undefined) return finish(finishReason, more());
      }
      const room = maxTokens - chosen.length;
      next = await pass(reader, chooser, speculator, { context, ends, room, vocabulary });
    }
  } finally {
    try {
      await speculator?.release();
    } finally {
      reader.release();
    }
  }
}

/**
 * Continues a prompt, greedily or by sampling.
 *
 * @throws what `generateTokens` throws
 */
export async function generate(decoder: StepModel, options: GenerateOptions): Promise<Generation> {
  const { onToken, ...rest } = options;
  const tokens = generateTokens(decoder, rest);
  try {
    for (;;) {
      const { done, value } = await tokens.next();
      if (done) return value;
      onToken?.(value.id);
    }
  } finally {
    // What `onToken` throws ends the generation.
    await tokens.return(undefined as never);
  }
}

interface PassState {
  /** The tokens of prompt and answer; the model has read all but the last. */
  readonly context: readonly number[];
  readonly ends: ReadonlySet<number>;
  /** The most tokens that may come yet, 1 or more. */
  readonly room: number;
  readonly vocabulary: number;
}

/** One pass of the model: the next token, or several where drafts were right. */
async function pass(
  reader: SequenceReader,
  chooser: TokenChooser,
  speculator: Speculator | undefined,
  { context, ends, room, vocabulary }: PassState,
): Promise<ChosenToken[]> {
  const last = context.at(-1)!;
  // A pass brings one token more than were drafted.
  const proposal = await speculator?.propose({ context, room: room - 1, vocabulary });
  if (proposal === undefined || proposal.ids.length === 0) {
    const rows = await reader.read([last], 'last');
    const token = chooser.choose(rows.at(0));
    speculator?.settle(proposal, { context, tokens: [token], accepted: 0, ties: 0 });
    return [token];
  }
  const { ids, drawnFrom } = proposal;
  const rows = await reader.read([last, ...ids], 'all');
  const tokens: ChosenToken[] = [];
  let accepted = 0;
  let ties = 0;
  for (let i = 0; i <= ids.length; i++) {
    const verdict = chooser.verify(rows.at(i), ids[i], drawnFrom?.[i]);
    tokens.push(verdict.token);
    if (verdict.tie) ties++;
    if (!verdict.accepted) break;
    accepted++;
    if (ends.has(verdict.token.id)) break;
  }
  reader.rewind(context.length + accepted);
  speculator?.settle(proposal, { context, tokens, accepted, ties });
  return tokens;
}

/** Reads what the cache does not have of the prompt: the logits behind it, and what is asked of its tokens. */
async function readPrompt(
  reader: SequenceReader,
  { promptIds, promptLogprobs, logprobs = 0 }: GenerateOptions,
): Promise<{ last: Float32Array; tokens?: PromptToken[] }> {
  if (!promptLogprobs) {
    const rows = await reader.read(promptIds.slice(reader.length), 'last');
    return { last: rows.at(-1) };
  }
  const tokens: PromptToken[] = promptIds.slice(0, 1).map((id) => ({ id }));
  let size = FIRST_CHUNK;
  // The same memory for all parts: what is left to the garbage collector by megabytes stops everything now and then.
  let into: Float32Array | undefined;
  for (;;) {
    // In parts: the logits of a long prompt would take gigabytes.
    const rows = await reader.read(promptIds.slice(reader.length, reader.length + size), 'all', { into });
    const first = reader.length - rows.count;
    let turn = performance.now();
    for (let i = 0; i < rows.count && first + i + 1 < promptIds.length; i++) {
      const id = promptIds[first + i + 1]!;
      if (performance.now() - turn > TURN_MS) {
        await new Promise(setImmediate);
        turn = performance.now();
      }
      const position = new Logprobs(rows.at(i));
      tokens.push({
        id,
        logprob: position.of(id),
        ...(logprobs === 0 ? {} : { top: position.top(logprobs) }),
      });
    }
    const last = rows.at(-1);
    if (reader.length >= promptIds.length) return { last, tokens };
    size = Math.max(1, Math.floor(LOGITS_AT_ONCE / last.length));
    into ??= new Float32Array(Math.min(size, promptIds.length - reader.length) * last.length);
  }
}

function check(model: StepModel, options: GenerateOptions): void {
  checkSampling(options);
  const amount = (value: number) => Number.isSafeInteger(value) && value >= 0;
  requireOption('maxTokens', options.maxTokens, 'a whole number of 0 or more', amount);
  requireOption('logprobs', options.logprobs, 'a whole number of 0 or more', amount);
  requireOption('seed', options.seed, 'a whole number', Number.isSafeInteger);
  if (options.speculate !== undefined) checkSpeculation(model, options.speculate);
}

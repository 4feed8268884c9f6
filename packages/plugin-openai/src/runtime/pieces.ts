import {
  type ChosenToken,
  type Generation,
  generateTokens,
  type PrefixCache,
  type PromptToken,
  type SpeculateOptions,
  type StepModel,
} from '@cqil/runtime-gpu';
import type { Grammars } from '../constrain/grammars.js';
import type { TextPiece, TextRequest, TokenLogprob } from '../model.js';
import { Detokenizer } from '../text/detokenizer.js';
import type { Vocabulary } from '../text/vocabulary.js';
import type { PrefixPool } from './prefix-pool.js';
import { readAhead } from './read-ahead.js';

export interface RuntimeModel {
  readonly decoder: StepModel;
  /** What earlier requests left. */
  readonly prefixes: PrefixPool;
  readonly decode: (ids: readonly number[]) => string;
  readonly vocabulary: Vocabulary;
  readonly grammars: Grammars;
  readonly eosIds: readonly number[];
}

export interface PieceOptions {
  /** Drafts tokens and checks several in one step. */
  readonly speculate: SpeculateOptions | undefined;
}

/** The runtime's tokens as pieces of text. */
export async function* pieces(
  model: RuntimeModel,
  request: TextRequest,
  options: PieceOptions,
): AsyncGenerator<TextPiece, void> {
  const { prefixes } = model;
  const { promptLogprobs = false, promptIds } = request;
  const { cache, shared } = prefixes.take(promptLogprobs ? [] : promptIds);
  try {
    if (!promptLogprobs) yield { text: '', tokens: 0, cachedTokens: shared };
    yield* generated(model, request, cache, options);
  } finally {
    prefixes.put(cache);
  }
}

async function* generated(
  model: RuntimeModel,
  request: TextRequest,
  cache: PrefixCache,
  { speculate }: PieceOptions,
): AsyncGenerator<TextPiece, void> {
  const { decoder, vocabulary, grammars } = model;
  const { schema, promptLogprobs = false, maxTokens, promptIds, logprobs, signal } = request;
  const told = (prompt: readonly PromptToken[]) => ({
    text: '',
    tokens: 0,
    prompt: prompt.map((token) => logprobOf(vocabulary, token)),
  });
  if (promptLogprobs && maxTokens === 0) {
    const prompt = { promptIds, maxTokens, promptLogprobs, signal, cache };
    const read = await last(
      generateTokens(decoder, { ...prompt, ...(logprobs === undefined ? {} : { logprobs }) }),
    );
    yield told(read.promptLogprobs ?? []);
    yield { text: '', tokens: 0, finishReason: 'length' };
    return;
  }
  const constraint = schema === undefined ? undefined : await grammars.constrain(schema);
  try {
    const { schema: _, ...options } = request;
    const detokenizer = new Detokenizer((ids) => model.decode(ids), promptIds);
    const settings = { ...options, eosIds: model.eosIds, cache };
    // What may come next is known of a constraint only when the token before has been taken.
    const tokens =
      constraint === undefined
        ? readAhead((signal) => {
            const drafts = speculate === undefined ? {} : { speculate };
            return generateTokens(decoder, { ...settings, ...drafts, signal });
          }, signal)
        : generateTokens(decoder, { ...settings, constraint });
    for await (const token of tokens) {
      const { finishReason, speculation } = token;
      if (token.promptLogprobs !== undefined) yield told(token.promptLogprobs);
      const drafts =
        speculation === undefined
          ? {}
          : { drafts: { drafted: speculation.drafted, accepted: speculation.accepted } };
      if (finishReason === 'stop') {
        yield { text: detokenizer.flush(), tokens: 1, ...drafts, finishReason };
        return;
      }
      const text = detokenizer.push(token.id);
      yield {
        text: finishReason === undefined ? text : text + detokenizer.flush(),
        tokens: 1,
        ...drafts,
        ...(token.logprob === undefined ? {} : { logprob: logprobOf(vocabulary, token) }),
        ...(finishReason === undefined ? {} : { finishReason }),
      };
      await constraint?.settle();
    }
  } finally {
    constraint?.dispose();
  }
}

/** What a generation comes to. */
async function last(tokens: AsyncGenerator<unknown, Generation>): Promise<Generation> {
  for (;;) {
    const { done, value } = await tokens.next();
    if (done === true) return value;
  }
}

function logprobOf(
  vocabulary: Vocabulary,
  { id, logprob, top = [] }: ChosenToken | PromptToken,
): TokenLogprob {
  return {
    ...vocabulary.text(id),
    logprob: logprob ?? null,
    top: top.map((one) => ({ ...vocabulary.text(one.id), logprob: one.logprob })),
  };
}

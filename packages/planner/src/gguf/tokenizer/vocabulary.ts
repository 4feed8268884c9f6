import { ModelFormatError } from '@cqil/core';
import type { Metadata } from '../metadata.js';

/** `tokenizer.ggml.token_type` */
export const TokenType = {
  NORMAL: 1,
  UNKNOWN: 2,
  CONTROL: 3,
  USER_DEFINED: 4,
  UNUSED: 5,
  BYTE: 6,
} as const;

/** What both kinds of tokenizers have. */
export interface Vocabulary {
  readonly tokens: readonly string[];
  /** The kind of each token, see `TokenType`. */
  readonly types: ArrayLike<number>;
  readonly special: SpecialTokens;
  readonly addBos: boolean | undefined;
  readonly addEos: boolean | undefined;
  readonly addSpacePrefix: boolean | undefined;
}

/** Ids. */
export interface SpecialTokens {
  readonly bos: number | undefined;
  readonly eos: number | undefined;
  readonly unknown: number | undefined;
  readonly padding: number | undefined;
  /** End of a turn or a message, where it differs from the end of the text. */
  readonly endOfTurn: readonly number[];
}

/**
 * Tokens, their kinds and the special ones.
 *
 * @param vocabularySize rows of the embedding table: no token may lie beyond
 * @throws ModelFormatError `GGUF_TOKENIZER` or `GGUF_METADATA` when they are missing or contradict each other
 */
export function readVocabulary(metadata: Metadata, vocabularySize: number): Vocabulary {
  const tokens = metadata.strings('tokenizer.ggml.tokens');
  if (tokens === undefined) throw metadata.missing('tokenizer.ggml.tokens', 'what its tokens are');
  if (tokens.length > vocabularySize || tokens.length === 0) {
    throw tokenizerError(`1 to ${vocabularySize} tokens, a row of the embedding each`, `${tokens.length}`);
  }
  const types =
    metadata.numbers('tokenizer.ggml.token_type') ?? new Uint8Array(tokens.length).fill(TokenType.NORMAL);
  if (types.length !== tokens.length) {
    throw tokenizerError(`${tokens.length} token types`, `${types.length}`);
  }
  const id = (key: string) => metadata.integer(`tokenizer.ggml.${key}_token_id`, 0, tokens.length - 1);
  const turn = [id('eot'), id('eom')].filter((value) => value !== undefined);
  return {
    tokens,
    types,
    special: {
      bos: id('bos'),
      eos: id('eos'),
      unknown: id('unknown'),
      padding: id('padding'),
      endOfTurn: [...new Set(turn)],
    },
    addBos: metadata.boolean('tokenizer.ggml.add_bos_token'),
    addEos: metadata.boolean('tokenizer.ggml.add_eos_token'),
    addSpacePrefix: metadata.boolean('tokenizer.ggml.add_space_prefix'),
  };
}

export function tokenizerError(expected: string, found: string): ModelFormatError {
  return new ModelFormatError('GGUF_TOKENIZER', 'The tokenizer of this file cannot be used.', {
    expected,
    found,
    hint: 'The file is damaged, or its tokenizer is of a kind that is not known here.',
  });
}

import type { Metadata } from '../metadata.js';
import { addedTokens, type TokenizerJson, templateProcessor, vocabularyObject } from './tokenizer-json.js';
import { TokenType, tokenizerError, type Vocabulary } from './vocabulary.js';

/** No tokenizer makes longer tokens (SentencePiece's own limit is 16 unless told otherwise). */
const MAX_TOKEN_LENGTH = 512;

/** U+2581, which stands for a space in SentencePiece's tokens. */
const SPACE = '▁';

/**
 * A SentencePiece BPE tokenizer (`tokenizer.ggml.model = llama`). The file has scores instead of merges: the
 * pair whose merged token scores highest is merged first, so listing all pairs by score gives the merges back.
 */
export function sentencePieceTokenizer(metadata: Metadata, vocabulary: Vocabulary): TokenizerJson {
  const { tokens, types, special } = vocabulary;
  const scores = metadata.numbers('tokenizer.ggml.scores');
  if (scores === undefined) throw metadata.missing('tokenizer.ggml.scores', 'how its tokens score');
  if (scores.length !== tokens.length) throw tokenizerError(`${tokens.length} scores`, `${scores.length}`);
  const bytes = Array.prototype.filter.call(types, (type: number) => type === TokenType.BYTE).length;
  const unknown = special.unknown ?? firstOfType(types, TokenType.UNKNOWN);
  const prefix = vocabulary.addSpacePrefix ?? true;
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: addedTokens(vocabulary, true),
    normalizer: {
      type: 'Sequence',
      normalizers: [
        ...(prefix ? [{ type: 'Prepend', prepend: SPACE }] : []),
        { type: 'Replace', pattern: { String: ' ' }, content: SPACE },
      ],
    },
    pre_tokenizer: null,
    post_processor: templateProcessor(vocabulary, vocabulary.addBos ?? true, vocabulary.addEos ?? false),
    decoder: {
      type: 'Sequence',
      decoders: [
        { type: 'Replace', pattern: { String: SPACE }, content: ' ' },
        { type: 'ByteFallback' },
        { type: 'Fuse' },
        ...(prefix ? [{ type: 'Strip', content: ' ', start: 1, stop: 0 }] : []),
      ],
    },
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: unknown === undefined ? null : tokens[unknown]!,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: true,
      byte_fallback: bytes === 256,
      ignore_merges: false,
      vocab: vocabularyObject(vocabulary),
      merges: mergesFromScores(tokens, types, scores),
    },
  };
}

/**
 * Every pair of tokens that makes a token, best score of the result first; of equal scores the pair with the
 * earlier parts first, so that the order is always the same.
 */
export function mergesFromScores(
  tokens: readonly string[],
  types: ArrayLike<number>,
  scores: ArrayLike<number>,
): [string, string][] {
  const ids = new Map<string, number>();
  for (const [id, token] of tokens.entries()) {
    if (types[id] === TokenType.NORMAL) ids.set(token, id);
  }
  const merges: { left: number; right: number; score: number; merged: number }[] = [];
  for (const [token, merged] of ids) {
    if (token.length > MAX_TOKEN_LENGTH) continue;
    // By code points: half a surrogate pair is no token.
    for (let at = 0; ; ) {
      at += (token.codePointAt(at) ?? 0) > 0xffff ? 2 : 1;
      if (at >= token.length) break;
      const left = ids.get(token.slice(0, at));
      const right = ids.get(token.slice(at));
      if (left === undefined || right === undefined) continue;
      merges.push({ left, right, merged, score: scores[merged]! });
    }
  }
  merges.sort((a, b) => b.score - a.score || a.merged - b.merged || a.left - b.left || a.right - b.right);
  return merges.map(({ left, right }) => [tokens[left]!, tokens[right]!]);
}

function firstOfType(types: ArrayLike<number>, wanted: number): number | undefined {
  const index = Array.prototype.indexOf.call(types, wanted);
  return index === -1 ? undefined : index;
}

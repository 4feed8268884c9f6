import type { Metadata } from '../metadata.js';
import { byteLevelTokenizer } from './byte-level.js';
import { sentencePieceTokenizer } from './sentencepiece.js';
import type { JsonObject, TokenizerJson } from './tokenizer-json.js';
import { readVocabulary, type SpecialTokens, tokenizerError, type Vocabulary } from './vocabulary.js';

/** What `tokenizer.json` and `tokenizer_config.json` hold, and what generation needs to know. */
export interface TokenizerFiles {
  readonly tokenizer: TokenizerJson;
  readonly config: JsonObject;
  readonly special: SpecialTokens;
}

/**
 * The tokenizer of a GGUF file in the form that Transformers.js loads.
 *
 * @throws ModelFormatError `GGUF_TOKENIZER` for a kind that is not known, `GGUF_PRE_TOKENIZER`
 */
export function tokenizerFiles(
  metadata: Metadata,
  vocabularySize: number,
  contextLength: number,
): TokenizerFiles {
  const kind = metadata.string('tokenizer.ggml.model');
  if (kind !== 'gpt2' && kind !== 'llama') {
    const expected = 'tokenizer.ggml.model = gpt2 (byte-level BPE) or llama (SentencePiece)';
    throw tokenizerError(expected, kind ?? 'no tokenizer');
  }
  const vocabulary = readVocabulary(metadata, vocabularySize);
  const tokenizer =
    kind === 'gpt2' ? byteLevelTokenizer(metadata, vocabulary) : sentencePieceTokenizer(metadata, vocabulary);
  return {
    tokenizer,
    special: vocabulary.special,
    config: tokenizerConfig(metadata, vocabulary, tokenizer, kind, contextLength),
  };
}

function tokenizerConfig(
  metadata: Metadata,
  vocabulary: Vocabulary,
  tokenizer: TokenizerJson,
  kind: 'gpt2' | 'llama',
  contextLength: number,
): JsonObject {
  const { tokens, special } = vocabulary;
  const token = (id: number | undefined) => (id === undefined ? null : tokens[id]!);
  const template = chatTemplate(metadata);
  return {
    add_bos_token: startsWith(tokenizer, token(special.bos)),
    add_eos_token: vocabulary.addEos ?? false,
    add_prefix_space: vocabulary.addSpacePrefix ?? kind === 'llama',
    added_tokens_decoder: Object.fromEntries(
      tokenizer.added_tokens.map(({ id, ...rest }) => [String(id), rest]),
    ),
    bos_token: token(special.bos),
    ...(template === undefined ? {} : { chat_template: template }),
    clean_up_tokenization_spaces: false,
    eos_token: token(special.eos),
    model_max_length: contextLength,
    pad_token: token(special.padding ?? special.eos),
    padding_side: 'left',
    tokenizer_class: kind === 'llama' ? 'LlamaTokenizer' : 'GPT2Tokenizer',
    unk_token: token(special.unknown),
  };
}

function startsWith(tokenizer: TokenizerJson, bos: string | null): boolean {
  const tokens = tokenizer.post_processor?.special_tokens;
  return bos !== null && typeof tokens === 'object' && tokens !== null && bos in tokens;
}

/** The default template, or a list of all where the file has named ones as well. */
function chatTemplate(metadata: Metadata): string | { name: string; template: string }[] | undefined {
  const main = metadata.string('tokenizer.chat_template');
  const prefix = 'tokenizer.chat_template.';
  const named = metadata.keys
    .filter((key) => key.startsWith(prefix))
    .map((key) => ({ name: key.slice(prefix.length), template: metadata.string(key)! }));
  if (named.length === 0) return main;
  return main === undefined ? named : [{ name: 'default', template: main }, ...named];
}

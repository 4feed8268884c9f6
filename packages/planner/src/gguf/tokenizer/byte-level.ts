import type { Metadata } from '../metadata.js';
import { preTokenizer } from './pre-tokenizers.js';
import { addedTokens, type TokenizerJson, templateProcessor, vocabularyObject } from './tokenizer-json.js';
import { tokenizerError, type Vocabulary } from './vocabulary.js';

/**
 * A byte-level BPE tokenizer (`tokenizer.ggml.model = gpt2`): every byte is a printable character, pairs of
 * which are merged in the order of the list.
 */
export function byteLevelTokenizer(metadata: Metadata, vocabulary: Vocabulary): TokenizerJson {
  const rules = preTokenizer(metadata.string('tokenizer.ggml.pre'));
  const prefix = vocabulary.addSpacePrefix === true;
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: addedTokens(vocabulary, false),
    normalizer: rules.normalizer === undefined ? null : { type: rules.normalizer },
    pre_tokenizer: {
      type: 'Sequence',
      pretokenizers: [
        ...rules.splits.map((pattern) => ({
          type: 'Split',
          pattern: { Regex: pattern },
          behavior: 'Isolated',
          invert: false,
        })),
        { type: 'ByteLevel', add_prefix_space: prefix, trim_offsets: true, use_regex: false },
      ],
    },
    post_processor: templateProcessor(
      vocabulary,
      vocabulary.addBos ?? rules.addBos ?? false,
      vocabulary.addEos ?? false,
    ),
    decoder: { type: 'ByteLevel', add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: rules.ignoreMerges ?? false,
      vocab: vocabularyObject(vocabulary),
      merges: readMerges(metadata),
    },
  };
}

/** Pairs as the file lists them: two parts with a space between; a part may itself begin with no space. */
function readMerges(metadata: Metadata): [string, string][] {
  const merges = metadata.strings('tokenizer.ggml.merges');
  if (merges === undefined) throw metadata.missing('tokenizer.ggml.merges', 'which tokens are merged');
  return merges.map((merge) => {
    const space = merge.indexOf(' ', 1);
    if (space === -1 || space === merge.length - 1) {
      throw tokenizerError('merges of two parts, separated by a space', JSON.stringify(merge.slice(0, 80)));
    }
    return [merge.slice(0, space), merge.slice(space + 1)];
  });
}

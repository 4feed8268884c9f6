import { ModelFormatError } from '@cqil/core';

/**
 * How text is cut before byte-pair merges. GGUF keeps only a name (`tokenizer.ggml.pre`); what it means is
 * agreed between converter and llama.cpp (`llama-vocab.cpp`), and is written here as regular expressions in the
 * syntax of Hugging Face's tokenizers: each one cuts the pieces that the one before has left.
 */
export interface PreTokenizer {
  readonly splits: readonly string[];
  /** A whole piece that is a token stays one, whatever the merges say. */
  readonly ignoreMerges?: boolean;
  /** Unicode normalisation before everything. */
  readonly normalizer?: 'NFC';
  /** Whether a begin-of-sequence token is set where the file does not say. */
  readonly addBos?: boolean;
}

const GPT2 = String.raw`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`;
const ENDINGS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
const TAIL = String.raw`\s*[\r\n]+|\s+(?!\S)|\s+`;
const words = (digits: string) =>
  String.raw`${ENDINGS}|[^\r\n\p{L}\p{N}]?\p{L}+|${digits}| ?[^\s\p{L}\p{N}]+[\r\n]*|${TAIL}`;
const LLAMA3 = words(String.raw`\p{N}{1,3}`);
const QWEN2 = words(String.raw`\p{N}`);
const UPPER = String.raw`[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]`;
const LOWER = String.raw`[\p{Ll}\p{Lm}\p{Lo}\p{M}]`;
const cased = (ending: string, digits: string) =>
  String.raw`[^\r\n\p{L}\p{N}]?${UPPER}*${LOWER}+${ending}|[^\r\n\p{L}\p{N}]?${UPPER}+${LOWER}*${ending}|${digits}| ?[^\s\p{L}\p{N}]+[\r\n/]*|${TAIL}`;

const gpt2: PreTokenizer = { splits: [GPT2] };
const singleDigits: PreTokenizer = { splits: [String.raw`\p{N}`, GPT2] };
const llama3: PreTokenizer = { splits: [LLAMA3], ignoreMerges: true, addBos: true };
const llama3Merging: PreTokenizer = { splits: [LLAMA3] };
const qwen2: PreTokenizer = { splits: [QWEN2], normalizer: 'NFC' };
const punctuatedSentences: PreTokenizer = { splits: [String.raw` ?[^(\s|.,!?…。，、।۔،)]+`] };

/** llama.cpp's rules for files that do not name any. */
const unnamed: PreTokenizer = {
  splits: [String.raw`[\p{P}\$\+<=>\^~\|]+`, GPT2, String.raw`\p{N}+`, '[0-9][0-9][0-9]'],
};

export const PRE_TOKENIZERS: ReadonlyMap<string, PreTokenizer> = new Map<string, PreTokenizer>([
  ['default', unnamed],
  ['gpt-2', gpt2],
  ['phi-2', gpt2],
  ['mpt', gpt2],
  ['olmo', gpt2],
  ['dolma', gpt2],
  ['jais', gpt2],
  ['trillion', gpt2],
  ['granite-docling', gpt2],
  ['smollm', singleDigits],
  ['starcoder', singleDigits],
  ['refact', singleDigits],
  ['command-r', singleDigits],
  ['codeshell', singleDigits],
  ['exaone', singleDigits],
  ['minerva-7b', singleDigits],
  ['llama3', llama3],
  ['llama-v3', llama3],
  ['llama-bpe', llama3],
  ['falcon3', llama3],
  ['dbrx', llama3Merging],
  ['smaug-bpe', llama3Merging],
  ['chatglm-bpe', llama3Merging],
  ['glm4', llama3Merging],
  ['qwen2', qwen2],
  ['deepseek-r1-qwen', qwen2],
  ['stablelm2', { splits: [QWEN2] }],
  ['megrez', qwen2],
  ['tekken', { splits: [cased('', String.raw`\p{N}`)], ignoreMerges: true, addBos: true }],
  ['gpt-4o', { splits: [cased(`${ENDINGS}?`, String.raw`\p{N}{1,3}`)] }],
  ['llama4', { splits: [cased(`${ENDINGS}?`, String.raw`\p{N}{1,3}`)] }],
  [
    'deepseek-coder',
    {
      splits: [
        String.raw`[\r\n]`,
        String.raw`\s?\p{L}+`,
        String.raw`\s?\p{P}+`,
        '[一-龥ࠀ-一가-퟿]+',
        String.raw`\p{N}`,
      ],
    },
  ],
  ['falcon', { splits: ['[\\p{P}\\$\\+<=>\\^~\\|`]+', GPT2, '[0-9][0-9][0-9]'] }],
  ['poro-chat', punctuatedSentences],
  ['bloom', punctuatedSentences],
  ['gpt3-finnish', punctuatedSentences],
  ['viking', { splits: [...punctuatedSentences.splits, String.raw`\p{N}`] }],
]);

/**
 * The rules of a name.
 * @throws ModelFormatError `GGUF_PRE_TOKENIZER` for a name whose rules are not known: cutting the text in
 * another way would give the model tokens it was not trained on.
 */
export function preTokenizer(name: string | undefined): PreTokenizer {
  const rules = PRE_TOKENIZERS.get(name ?? 'default');
  if (rules !== undefined) return rules;
  throw new ModelFormatError('GGUF_PRE_TOKENIZER', `The pre-tokenizer "${name}" is not known.`, {
    expected: `one of ${[...PRE_TOKENIZERS.keys()].join(', ')}`,
    found: `tokenizer.ggml.pre = ${name}`,
    hint: "Use the model's ONNX form, whose folder has the original tokenizer.",
  });
}

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** The fixtures' vocabulary. */
const SIZE = 512;
const SPECIAL = ['<pad>', '<s>', '</s>'];

const TEMPLATE =
  "{% for m in messages %}<s>{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}{% if add_generation_prompt %}<s>assistant: {% endif %}";

/**
 * Gives a model folder a tokenizer of the fixtures' size: three special tokens, one token for each byte, and
 * words that no text contains.
 */
export function writeTokenizer(folder: string): void {
  const tokens = [...SPECIAL, ...byteTokens()];
  while (tokens.length < SIZE) tokens.push(`word${tokens.length}`);
  const vocab = Object.fromEntries(tokens.map((token, id) => [token, id]));
  const byteLevel = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true };
  const tokenizer = {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: SPECIAL.map((content, id) => ({
      id,
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: true,
    })),
    normalizer: null,
    pre_tokenizer: byteLevel,
    post_processor: null,
    decoder: byteLevel,
    model: { type: 'BPE', dropout: null, unk_token: null, fuse_unk: false, vocab, merges: [] },
  };
  const config = {
    tokenizer_class: 'PreTrainedTokenizerFast',
    pad_token: '<pad>',
    bos_token: '<s>',
    eos_token: '</s>',
    model_max_length: 256,
    chat_template: TEMPLATE,
  };
  writeFileSync(join(folder, 'tokenizer.json'), JSON.stringify(tokenizer));
  writeFileSync(join(folder, 'tokenizer_config.json'), JSON.stringify(config));
}

/** The printable stand-ins of byte-level BPE, by byte (GPT-2's table). */
function byteTokens(): string[] {
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => {
    const printable = (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
    return String.fromCodePoint(printable ? byte : next++);
  });
}

import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const FIXTURE = fileURLToPath(new URL('../../../../testdata/optimum/llama/', import.meta.url));
const SIZE = 512;
const SPECIAL = ['<pad>', '<s>', '</s>'];
const TEMPLATE = [
  '{% if tools %}<s>tools: {{ tools | tojson }} as <tool_call>{...}</tool_call>\n{% endif %}',
  "{% for m in messages %}{% if m['role'] == 'system' and not loop.first %}{{ raise_exception('only the first message can be of the system') }}{% endif %}",
  "<s>{{ m['role'] }}: {{ m['content'] }}{% for c in m.tool_calls or [] %}<tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}{{ '\n' }}{% endfor %}",
  '{% if add_generation_prompt %}<s>assistant: {% endif %}',
].join('');

export interface TinyModel extends Disposable {
  readonly folder: string;
}

/**
 * A folder with the tiny llama of the fixtures, a tokenizer of one token for each byte, and the config changed
 * as asked. Its weights are random: what it writes is bytes, not language.
 */
export function tinyModel(config: object = {}): TinyModel {
  const folder = mkdtempSync(join(tmpdir(), 'cqil-openai-'));
  cpSync(FIXTURE, folder, { recursive: true });
  const own = JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8'));
  const write = (name: string, value: object) => writeFileSync(join(folder, name), JSON.stringify(value));
  write('config.json', { ...own, ...config });

  const tokens = [...SPECIAL, ...byteTokens()];
  while (tokens.length < SIZE) tokens.push(`word${tokens.length}`);
  const vocab = Object.fromEntries(tokens.map((token, id) => [token, id]));
  const byteLevel = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true };
  const added = { single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };
  write('tokenizer.json', {
    version: '1.0',
    added_tokens: SPECIAL.map((content, id) => ({ id, content, ...added })),
    normalizer: null,
    pre_tokenizer: byteLevel,
    post_processor: null,
    decoder: byteLevel,
    model: { type: 'BPE', unk_token: null, fuse_unk: false, vocab, merges: [] },
  });
  write('tokenizer_config.json', {
    tokenizer_class: 'PreTrainedTokenizerFast',
    bos_token: '<s>',
    eos_token: { content: '</s>' },
    chat_template: TEMPLATE,
  });
  return { folder, [Symbol.dispose]: () => rmSync(folder, { recursive: true, force: true }) };
}

/** The printable stand-ins of byte-level BPE, by byte (GPT-2's table). */
function byteTokens(): string[] {
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => {
    const printable = (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
    return String.fromCodePoint(printable ? byte : next++);
  });
}

import { cp, mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';

const TESTDATA = path.resolve(import.meta.dirname, '../../../../../testdata');
/** The fixtures' vocabulary. */
const SIZE = 512;
const SPECIAL = ['<pad>', '<s>', '</s>'];
/** More tokens than bytes alone, so that a text gives ids from all of the vocabulary. */
const MERGES = ['th', 'he', 'in', 'er', 'an', 're', 'on', 'at', 'en', 'or', 'st', 'ar', '==', '()', 'et'];

/** Copies a fixture's folder and gives it a tokenizer of its vocabulary's size. */
export async function modelFolder(fixture: string, to: string): Promise<string> {
  await cp(path.join(TESTDATA, fixture), to, { recursive: true });
  const tokens = [...SPECIAL, ...byteTokens(), ...MERGES];
  while (tokens.length < SIZE) tokens.push(`word${tokens.length}`);
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
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: null,
      fuse_unk: false,
      vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
      merges: MERGES.map(([a, b]) => `${a} ${b}`),
    },
  };
  const config = {
    tokenizer_class: 'PreTrainedTokenizerFast',
    bos_token: '<s>',
    eos_token: '</s>',
    model_max_length: 256,
  };
  await writeFile(path.join(to, 'tokenizer.json'), JSON.stringify(tokenizer));
  await writeFile(path.join(to, 'tokenizer_config.json'), JSON.stringify(config));
  return to;
}

/** Writes two texts of different kinds. @returns their specs */
export async function textFiles(folder: string, words = 3000, seed = 1): Promise<string[]> {
  await mkdir(folder, { recursive: true });
  const files = { prose: prose(words, seed), code: code(words, seed + 100) };
  for (const [kind, text] of Object.entries(files)) await writeFile(path.join(folder, `${kind}.txt`), text);
  return Object.keys(files).map((kind) => `${kind}=${path.join(folder, `${kind}.txt`)}`);
}

function prose(words: number, seed: number): string {
  const random = generator(seed);
  const parts = ['the', 're', 'on', 'ing', 'sta', 'r', 'wind', 'sea', 'en', 'o', 'mar', 'lo', 'ha', 'ti'];
  const word = () => Array.from({ length: 1 + random(3) }, () => parts[random(parts.length)]).join('');
  const sentence = () => `${Array.from({ length: 4 + random(9) }, word).join(' ')}.`;
  const paragraphs: string[] = [];
  for (let count = 0; count < words; ) {
    const paragraph = Array.from({ length: 1 + random(5) }, sentence).join(' ');
    paragraphs.push(paragraph);
    count += paragraph.split(' ').length;
  }
  return paragraphs.join('\n\n');
}

function code(words: number, seed: number): string {
  const random = generator(seed);
  const name = () => `${'abcdefgh'[random(8)]}${random(90)}`;
  const lines = Array.from({ length: Math.ceil(words / 4) }, () =>
    random(4) === 0
      ? `if (${name()} == ${random(900)}) {\n  ${name()}();\n}\n`
      : `const ${name()} = ${name()} ${'+-*/'[random(4)]} ${random(9999)};`,
  );
  return lines.join('\n');
}

/** Whole numbers below what is asked, the same for a seed (a linear congruential generator). */
function generator(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

/** The printable stand-ins of byte-level BPE, by byte (GPT-2's table). */
function byteTokens(): string[] {
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => {
    const printable = (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
    return String.fromCodePoint(printable ? byte : next++);
  });
}

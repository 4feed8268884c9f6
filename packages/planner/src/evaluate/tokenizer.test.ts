import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { encodeStart, loadTokenizer } from './tokenizer.js';

/** Byte-level BPE over `a`, `b` and the space, with BOS added in front. */
const DEFINITION = {
  version: '1.0',
  added_tokens: ['<s>', '</s>'].map((content, id) => ({
    id,
    content,
    special: true,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
  })),
  normalizer: null,
  pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true },
  post_processor: {
    type: 'TemplateProcessing',
    single: [{ SpecialToken: { id: '<s>', type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
    pair: [{ Sequence: { id: 'A', type_id: 0 } }, { Sequence: { id: 'B', type_id: 0 } }],
    special_tokens: { '<s>': { id: '<s>', ids: [0], tokens: ['<s>'] } },
  },
  decoder: { type: 'ByteLevel', add_prefix_space: true, trim_offsets: true, use_regex: true },
  model: {
    type: 'BPE',
    dropout: null,
    unk_token: null,
    fuse_unk: false,
    byte_fallback: false,
    vocab: { '<s>': 0, '</s>': 1, a: 2, b: 3, Ġ: 4, ab: 5, Ġab: 6 },
    merges: ['a b', 'Ġ ab'],
  },
};

describe('loadTokenizer', () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(path.join(tmpdir(), 'tokenizer-test-'));
    await writeFile(path.join(folder, 'tokenizer.json'), JSON.stringify(DEFINITION));
    await writeFile(
      path.join(folder, 'tokenizer_config.json'),
      JSON.stringify({ tokenizer_class: 'GPT2Tokenizer', bos_token: '<s>', eos_token: { content: '</s>' } }),
    );
  });
  afterAll(() => rm(folder, { recursive: true }));

  it('encodes with what the post-processor adds, unless told not to, and decodes', async () => {
    const tokenizer = await loadTokenizer(folder);
    expect(tokenizer.encode('ab ab a')).toEqual([0, 5, 6, 4, 2]);
    expect(tokenizer.encode('ab', { addSpecialTokens: false })).toEqual([5]);
    expect(tokenizer.encode('', { addSpecialTokens: false })).toEqual([]);
    expect(tokenizer.decode([0, 5, 6, 4, 2])).toBe('<s>ab ab a');
    expect(tokenizer.decode([0, 5, 6], { skipSpecialTokens: true })).toBe('ab ab');
    expect(tokenizer.decode([])).toBe('');
  });

  it('knows where texts begin and end', async () => {
    const { bosId, eosId, size } = await loadTokenizer(folder);
    expect({ bosId, eosId, size }).toEqual({ bosId: 0, eosId: 1, size: 7 });
  });

  it('encodes only the start of a long text', async () => {
    const tokenizer = await loadTokenizer(folder);
    const text = 'ab '.repeat(20000);
    expect(encodeStart(tokenizer, text, 100)).toEqual(tokenizer.encode(text).slice(0, 100));
    expect(encodeStart(tokenizer, 'ab ab', 100)).toEqual([0, 5, 6]);
  });

  it('says what is missing or broken', async () => {
    await expect(loadTokenizer(path.join(folder, 'none'))).rejects.toMatchObject({
      code: 'TOKENIZER_NOT_FOUND',
    });
    const broken = await mkdtemp(path.join(folder, 'broken-'));
    await writeFile(path.join(broken, 'tokenizer.json'), '{"model":');
    await expect(loadTokenizer(broken)).rejects.toMatchObject({ code: 'TOKENIZER_INVALID' });
    await writeFile(path.join(broken, 'tokenizer.json'), '{"no": "model"}');
    await expect(loadTokenizer(broken)).rejects.toMatchObject({ code: 'TOKENIZER_INVALID' });
    await writeFile(path.join(broken, 'tokenizer.json'), '{"model": {"type": "Magic"}, "added_tokens": []}');
    await expect(loadTokenizer(broken)).rejects.toMatchObject({ code: 'TOKENIZER_INVALID' });
  });
});

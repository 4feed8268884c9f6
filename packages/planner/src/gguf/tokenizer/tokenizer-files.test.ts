import { readFileSync } from 'node:fs';
import { Tokenizer } from '@huggingface/tokenizers';
import { describe, expect, it } from 'vitest';
import { Metadata, type MetadataValue } from '../metadata.js';
import { PRE_TOKENIZERS, preTokenizer } from './pre-tokenizers.js';
import { mergesFromScores } from './sentencepiece.js';
import { tokenizerFiles } from './tokenizer-files.js';

interface ByteLevelVector {
  tokens: string[];
  merges: string[];
  ids: number[][];
}
interface SentencePieceVector {
  tokens: string[];
  scores: number[];
  types: number[];
  texts: string[];
  ids: number[][];
}

/** Small tokenizers and what Hugging Face's Rust library and Google's SentencePiece make of some texts. */
const vectors = JSON.parse(
  readFileSync(new URL('../../../../../testdata/gguf/tokenizers.json', import.meta.url), 'utf8'),
) as {
  texts: string[];
  byteLevel: Record<string, ByteLevelVector>;
  sentencePiece: Record<string, SentencePieceVector>;
};

function load(values: Record<string, MetadataValue>, tokens: number) {
  const files = tokenizerFiles(new Metadata(new Map(Object.entries(values))), tokens, 128);
  const json = JSON.parse(JSON.stringify(files)) as { tokenizer: object; config: object };
  return { ...files, loaded: new Tokenizer(json.tokenizer, json.config) };
}

function byteLevel(
  pre: string,
  { tokens, merges }: ByteLevelVector,
  more: Record<string, MetadataValue> = {},
) {
  return load(
    {
      'tokenizer.ggml.model': 'gpt2',
      'tokenizer.ggml.pre': pre,
      'tokenizer.ggml.tokens': tokens,
      'tokenizer.ggml.token_type': Int32Array.from(tokens, (token) => (token === '<|end|>' ? 3 : 1)),
      'tokenizer.ggml.merges': merges,
      'tokenizer.ggml.bos_token_id': tokens.length - 1,
      'tokenizer.ggml.eos_token_id': tokens.length - 1,
      ...more,
    },
    tokens.length,
  );
}

function sentencePiece(vector: SentencePieceVector, more: Record<string, MetadataValue> = {}) {
  return load(
    {
      'tokenizer.ggml.model': 'llama',
      'tokenizer.ggml.tokens': vector.tokens,
      'tokenizer.ggml.scores': Float32Array.from(vector.scores),
      'tokenizer.ggml.token_type': Int32Array.from(vector.types),
      'tokenizer.ggml.unknown_token_id': 0,
      'tokenizer.ggml.bos_token_id': 1,
      'tokenizer.ggml.eos_token_id': 2,
      ...more,
    },
    vector.tokens.length,
  );
}

describe('byte-level tokenizers', () => {
  it.each(Object.entries(vectors.byteLevel))('%s cuts and merges as the reference', (pre, vector) => {
    const { loaded } = byteLevel(pre, vector);
    for (const [i, text] of vectors.texts.entries()) {
      if (text === '') continue;
      const { ids } = loaded.encode(text, { add_special_tokens: false });
      expect({ text, ids }).toEqual({ text, ids: vector.ids[i] });
      if (pre !== 'qwen2') expect(loaded.decode(ids, { skip_special_tokens: false })).toBe(text);
    }
  });

  it.each([...PRE_TOKENIZERS.keys()])('%s loses no text', (pre) => {
    const { loaded } = byteLevel(pre, vectors.byteLevel['gpt-2']!);
    for (const text of vectors.texts.filter((text) => text !== '' && text === text.normalize('NFC'))) {
      const { ids } = loaded.encode(text, { add_special_tokens: false });
      expect(loaded.decode(ids, { skip_special_tokens: false })).toBe(text);
    }
  });

  it('sets begin and end tokens where the file or the kind of tokenizer asks for them', () => {
    const vector = vectors.byteLevel['gpt-2']!;
    const end = vector.tokens.length - 1;
    const ids = (pre: string, more: Record<string, MetadataValue>) =>
      byteLevel(pre, vector, more).loaded.encode('a').ids;
    expect(ids('gpt-2', {})).not.toContain(end);
    expect(ids('llama-bpe', {})[0]).toBe(end);
    expect(ids('llama-bpe', { 'tokenizer.ggml.add_bos_token': false })[0]).not.toBe(end);
    expect(ids('gpt-2', { 'tokenizer.ggml.add_eos_token': true }).at(-1)).toBe(end);
  });

  it('carries the chat template, and named ones beside it', () => {
    const vector = vectors.byteLevel['gpt-2']!;
    const one = byteLevel('gpt-2', vector, { 'tokenizer.chat_template': '{{ x }}' });
    expect(one.config.chat_template).toBe('{{ x }}');
    const two = byteLevel('gpt-2', vector, {
      'tokenizer.chat_template': '{{ x }}',
      'tokenizer.chat_template.tool_use': '{{ y }}',
    });
    expect(two.config.chat_template).toEqual([
      { name: 'default', template: '{{ x }}' },
      { name: 'tool_use', template: '{{ y }}' },
    ]);
  });

  it('names the known pre-tokenizers when it meets another', () => {
    expect(() => preTokenizer('martian')).toThrow(/smollm/);
  });

  it('refuses merges that are none', () => {
    const vector = vectors.byteLevel['gpt-2']!;
    expect(() => byteLevel('gpt-2', { ...vector, merges: ['ab'] })).toThrow(/merges/);
  });
});

describe('SentencePiece tokenizers', () => {
  it.each(Object.entries(vectors.sentencePiece))('%s: equal to SentencePiece itself', (kind, vector) => {
    const { loaded } = sentencePiece(vector, { 'tokenizer.ggml.add_space_prefix': kind === 'prefixed' });
    for (const [i, text] of vector.texts.entries()) {
      if (text === '') continue;
      const { ids } = loaded.encode(text, { add_special_tokens: false });
      expect({ text, ids }).toEqual({ text, ids: vector.ids[i] });
      expect(loaded.decode(ids)).toBe(text);
    }
  });

  it('begins with the begin token unless told otherwise, and prefixes a space', () => {
    const vector = vectors.sentencePiece.prefixed!;
    const { loaded, config } = sentencePiece(vector);
    expect(loaded.encode('The').ids[0]).toBe(1);
    expect(config).toMatchObject({
      add_bos_token: true,
      tokenizer_class: 'LlamaTokenizer',
      unk_token: '<unk>',
    });
    const without = sentencePiece(vector, { 'tokenizer.ggml.add_bos_token': false });
    expect(without.loaded.encode('The').ids[0]).not.toBe(1);
    expect(without.config.add_bos_token).toBe(false);
  });

  it('lists merges by the score of what they make', () => {
    expect(mergesFromScores(['a', 'b', 'ab', 'aba', 'ba'], [1, 1, 1, 1, 1], [-9, -9, -2, -3, -1])).toEqual([
      ['b', 'a'],
      ['a', 'b'],
      ['a', 'ba'],
      ['ab', 'a'],
    ]);
  });
});

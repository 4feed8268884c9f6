import { floatToHalf } from '../half.js';
import { type QuantType, quantLayout } from '../types.js';
import type { Pairs, TensorSpec } from './write-gguf.js';

/** Numbers of a small model; widths are multiples of 256, which the K-formats need. */
export interface TinyShape {
  readonly layers: number;
  readonly hidden: number;
  readonly ffn: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly vocabulary: number;
}

export const TINY: TinyShape = { layers: 2, hidden: 256, ffn: 512, heads: 4, kvHeads: 2, vocabulary: 320 };

export interface TinyOptions {
  readonly shape?: TinyShape;
  /** Type of the layers' matrices; a function chooses by tensor name. */
  readonly type?: QuantType | ((name: string) => QuantType);
  /** Type of the embedding table. */
  readonly embedding?: QuantType;
  /** An output matrix of its own, of this type. */
  readonly output?: QuantType;
  readonly biases?: boolean;
  readonly ropeFactors?: readonly number[];
  readonly seed?: number;
}

/** A random `llama` model that computes finite logits, as tensors for `writeGguf`. */
export function tinyTensors(options: TinyOptions = {}): TensorSpec[] {
  const shape = options.shape ?? TINY;
  const random = generator(options.seed ?? 1);
  const { hidden, ffn } = shape;
  const headDim = hidden / shape.heads;
  const kv = shape.kvHeads * headDim;
  const typeOf = (name: string) =>
    typeof options.type === 'function' ? options.type(name) : (options.type ?? 'F32');
  const matrix = (name: string, inputs: number, outputs: number, type = typeOf(name)): TensorSpec => ({
    name,
    dims: [inputs, outputs],
    type,
    bytes: randomBlocks(type, inputs * outputs, random),
  });
  const vector = (name: string, length: number, around: number): TensorSpec => ({
    name,
    dims: [length],
    type: 'F32',
    bytes: bytesOf(Float32Array.from({ length }, () => around + 0.2 * (random() - 0.5))),
  });
  const tensors = [
    matrix('token_embd.weight', hidden, shape.vocabulary, options.embedding ?? typeOf('token_embd')),
  ];
  for (let i = 0; i < shape.layers; i++) {
    const at = (name: string) => `blk.${i}.${name}`;
    tensors.push(
      vector(at('attn_norm.weight'), hidden, 1),
      matrix(at('attn_q.weight'), hidden, hidden),
      matrix(at('attn_k.weight'), hidden, kv),
      matrix(at('attn_v.weight'), hidden, kv),
      matrix(at('attn_output.weight'), hidden, hidden),
      vector(at('ffn_norm.weight'), hidden, 1),
      matrix(at('ffn_gate.weight'), hidden, ffn),
      matrix(at('ffn_up.weight'), hidden, ffn),
      matrix(at('ffn_down.weight'), ffn, hidden),
    );
    if (options.biases === true) {
      const sizes = {
        attn_q: hidden,
        attn_k: kv,
        attn_v: kv,
        attn_output: hidden,
        ffn_gate: ffn,
        ffn_up: ffn,
        ffn_down: hidden,
      };
      for (const [name, length] of Object.entries(sizes)) tensors.push(vector(at(`${name}.bias`), length, 0));
    }
  }
  tensors.push(vector('output_norm.weight', hidden, 1));
  if (options.output !== undefined)
    tensors.push(matrix('output.weight', hidden, shape.vocabulary, options.output));
  if (options.ropeFactors !== undefined) {
    const bytes = bytesOf(Float32Array.from(options.ropeFactors));
    tensors.push({ name: 'rope_freqs.weight', dims: [options.ropeFactors.length], type: 'F32', bytes });
  }
  return tensors;
}

/** Metadata of such a model, with a byte-level tokenizer whose vocabulary is filled up with special tokens. */
export function tinyPairs(shape: TinyShape = TINY, more: Pairs = {}): Pairs {
  const bytes = byteCharacters();
  const merges = ['t h', 'th e', 'Ġ the', 'i n', '1 2'];
  const merged = merges.map((merge) => merge.replace(' ', ''));
  const specials = Array.from(
    { length: shape.vocabulary - bytes.length - merged.length },
    (_, i) => `<|special_${i}|>`,
  );
  return {
    'general.architecture': { string: 'llama' },
    'general.name': { string: 'tiny' },
    'llama.block_count': { u32: shape.layers },
    'llama.context_length': { u32: 128 },
    'llama.embedding_length': { u32: shape.hidden },
    'llama.feed_forward_length': { u32: shape.ffn },
    'llama.attention.head_count': { u32: shape.heads },
    'llama.attention.head_count_kv': { u32: shape.kvHeads },
    'llama.attention.layer_norm_rms_epsilon': { f32: 1e-5 },
    'llama.rope.dimension_count': { u32: shape.hidden / shape.heads },
    'llama.rope.freq_base': { f32: 10000 },
    'tokenizer.ggml.model': { string: 'gpt2' },
    'tokenizer.ggml.pre': { string: 'gpt-2' },
    'tokenizer.ggml.tokens': { strings: [...bytes, ...merged, ...specials] },
    'tokenizer.ggml.token_type': { i32s: [...bytes, ...merged].map(() => 1).concat(specials.map(() => 3)) },
    'tokenizer.ggml.merges': { strings: merges },
    'tokenizer.ggml.bos_token_id': { u32: shape.vocabulary - 2 },
    'tokenizer.ggml.eos_token_id': { u32: shape.vocabulary - 1 },
    ...more,
  };
}

/** The 256 characters that stand for bytes in byte-level tokenizers (GPT-2's table). */
export function byteCharacters(): string[] {
  const printable = (byte: number) => (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => String.fromCodePoint(printable(byte) ? byte : next++));
}

/** Where the half-precision numbers of a block stand, and how large they may be for weights around 0.05. */
const HALVES: Readonly<Partial<Record<QuantType, readonly (readonly [offset: number, size: number])[]>>> = {
  Q8_0: [[0, 0.0008]],
  Q4_0: [[0, 0.012]],
  Q4_1: [
    [0, 0.012],
    [2, -0.07],
  ],
  Q5_0: [[0, 0.006]],
  Q5_1: [
    [0, 0.006],
    [2, -0.09],
  ],
  Q4_K: [
    [0, 0.0004],
    [2, 0.0012],
  ],
  Q5_K: [
    [0, 0.0002],
    [2, 0.0012],
  ],
  Q6_K: [[208, 0.00005]],
};

/**
 * Where K-quants pack the scales and minima of their parts. With these bits neither is small, so that the values of a
 * part lie on both sides of zero, as in a trained model.
 */
const PACKED_SCALES: Readonly<Partial<Record<QuantType, number>>> = { Q4_K: 4, Q5_K: 4 };
const LARGE = 0xa0;

/** Random values of a type: arbitrary codes and scales of a sensible size. */
export function randomBlocks(type: QuantType, count: number, random: () => number): Uint8Array {
  if (type === 'F32') return bytesOf(Float32Array.from({ length: count }, () => 0.2 * (random() - 0.5)));
  const { blockSize, blockBytes } = quantLayout(type);
  const blocks = count / blockSize;
  if (type === 'F16' || type === 'BF16') {
    const values = Float32Array.from({ length: count }, () => 0.2 * (random() - 0.5));
    const bits = new Uint32Array(values.buffer);
    return bytesOf(Uint16Array.from(values, (v, i) => (type === 'F16' ? floatToHalf(v) : bits[i]! >>> 16)));
  }
  const bytes = Uint8Array.from({ length: blocks * blockBytes }, () => Math.floor(256 * random()));
  for (let block = 0; block < blocks; block++) {
    for (const [offset, size] of HALVES[type] ?? []) {
      const half = floatToHalf(size * (0.5 + random()));
      bytes[block * blockBytes + offset] = half & 255;
      bytes[block * blockBytes + offset + 1] = half >> 8;
    }
    const packed = PACKED_SCALES[type];
    if (packed === undefined) continue;
    for (let i = 0; i < 8; i++) bytes[block * blockBytes + packed + i]! |= LARGE;
  }
  return bytes;
}

/** Mulberry32: the same numbers on every machine. */
export function generator(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

export function bytesOf(array: ArrayBufferView): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}

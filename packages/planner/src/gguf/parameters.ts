import { ModelFormatError } from '@cqil/core';
import type { Metadata } from './metadata.js';
import type { GgufModel } from './model-file.js';

/** The numbers that make a `llama` model, from the metadata. */
export interface LlamaParameters {
  readonly layers: number;
  readonly hiddenSize: number;
  readonly ffnSize: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly vocabSize: number;
  /** Positions that the imported model knows: what it was trained for, at most `MAX_POSITIONS`. */
  readonly contextLength: number;
  readonly normEpsilon: number;
  readonly rope: RopeParameters;
  /** The output matrix is the embedding table. */
  readonly tiedEmbeddings: boolean;
}

export interface RopeParameters {
  /** How many values at the beginning of each head are rotated. */
  readonly dimension: number;
  readonly base: number;
  /** Positions are divided by this (linear interpolation); 1 changes nothing. */
  readonly positionDivisor: number;
}

const MAX_LAYERS = 4096;
const MAX_WIDTH = 1 << 24;
const MAX_CONTEXT = 1 << 24;

/** Rotary tables are made for at most this many positions: beyond, they would outweigh the model. */
export const MAX_POSITIONS = 131072;

/**
 * The parameters of a model of architecture `llama`.
 *
 * @throws ModelFormatError `GGUF_ARCHITECTURE` for another architecture, `GGUF_MIXTURE_OF_EXPERTS`,
 * `GGUF_ROPE_SCALING` for position scaling that is not known here, `GGUF_METADATA` for what makes no sense.
 */
export function llamaParameters(model: GgufModel): LlamaParameters {
  const { metadata } = model;
  checkArchitecture(metadata);
  checkExperts(model);
  const required = (key: string, meaning: string, max: number): number => {
    const value = metadata.integer(`llama.${key}`, 1, max);
    if (value === undefined) throw metadata.missing(`llama.${key}`, meaning);
    return value;
  };
  const layers = required('block_count', 'how many layers the model has', MAX_LAYERS);
  const hiddenSize = required('embedding_length', 'how wide the model is', MAX_WIDTH);
  const ffnSize = required('feed_forward_length', 'how wide the FFN is', MAX_WIDTH);
  const heads = required('attention.head_count', 'how many attention heads there are', MAX_WIDTH);
  const kvHeads = metadata.integer('llama.attention.head_count_kv', 1, heads) ?? heads;
  const headDim = headDimension(metadata, hiddenSize, heads);
  if (heads % kvHeads !== 0) {
    throw inconsistent(`a number of heads that ${kvHeads} KV heads can share evenly`, `${heads} heads`);
  }
  const embedding = model.tensors.get('token_embd.weight');
  const epsilon = metadata.number('llama.attention.layer_norm_rms_epsilon');
  if (epsilon === undefined) {
    throw metadata.missing('llama.attention.layer_norm_rms_epsilon', 'the epsilon of its norms');
  }
  return {
    layers,
    hiddenSize,
    ffnSize,
    heads,
    kvHeads,
    headDim,
    vocabSize: vocabularySize(metadata, embedding?.dims[1]),
    contextLength: Math.min(
      required('context_length', 'for how many tokens it was trained', MAX_CONTEXT),
      MAX_POSITIONS,
    ),
    normEpsilon: epsilon,
    rope: ropeParameters(metadata, headDim),
    tiedEmbeddings: !model.tensors.has('output.weight'),
  };
}

function checkArchitecture(metadata: Metadata): void {
  const architecture = metadata.string('general.architecture');
  if (architecture === 'llama') return;
  throw new ModelFormatError('GGUF_ARCHITECTURE', 'This GGUF file holds a model of another architecture.', {
    expected: 'general.architecture = llama',
    found: architecture ?? 'no architecture',
    hint: 'Models of other architectures can be used in their ONNX form.',
  });
}

function checkExperts({ metadata, tensors }: GgufModel): void {
  const experts = metadata.integer('llama.expert_count', 0, MAX_WIDTH) ?? 0;
  const tensor = [...tensors.keys()].find((name) => /\.ffn_(gate|up|down)(_exps|_inp|\.\d+)\b/.test(name));
  if (experts === 0 && tensor === undefined) return;
  throw new ModelFormatError('GGUF_MIXTURE_OF_EXPERTS', 'This model is a mixture of experts.', {
    expected: 'a dense model',
    found: experts > 0 ? `${experts} experts` : `a tensor "${tensor}"`,
    hint: 'Mixtures of experts (Mixtral and the like) cannot be imported.',
  });
}

/** GGUF keeps two numbers; `GroupQueryAttention` knows one. */
function headDimension(metadata: Metadata, hiddenSize: number, heads: number): number {
  const key = metadata.integer('llama.attention.key_length', 1, MAX_WIDTH);
  const value = metadata.integer('llama.attention.value_length', 1, MAX_WIDTH);
  const size = key ?? hiddenSize / heads;
  if (!Number.isInteger(size)) throw inconsistent(`a width that ${heads} heads divide`, `${hiddenSize}`);
  if ((value ?? hiddenSize / heads) !== size) {
    throw inconsistent('keys and values of one length', `${size} and ${value ?? hiddenSize / heads}`);
  }
  return size;
}

function vocabularySize(metadata: Metadata, rows: number | undefined): number {
  const stated = metadata.integer('llama.vocab_size', 1, MAX_WIDTH);
  const size = rows ?? stated;
  if (size === undefined) throw metadata.missing('llama.vocab_size', 'how many tokens it knows');
  if (stated !== undefined && stated !== size) {
    throw inconsistent(`an embedding of ${stated} tokens`, `${size} rows`);
  }
  return size;
}

function ropeParameters(metadata: Metadata, headDim: number): RopeParameters {
  const dimension = metadata.integer('llama.rope.dimension_count', 2, headDim) ?? headDim;
  if (dimension % 2 !== 0) throw inconsistent('an even number of rotated values', `${dimension}`);
  const base = metadata.number('llama.rope.freq_base') ?? 10000;
  if (base <= 0) throw inconsistent('a positive rope.freq_base', `${base}`);
  const type = metadata.string('llama.rope.scaling.type') ?? 'linear';
  const factor =
    metadata.number('llama.rope.scaling.factor') ?? metadata.number('llama.rope.scale_linear') ?? 1;
  if (type === 'none') return { dimension, base, positionDivisor: 1 };
  if (type !== 'linear') {
    throw new ModelFormatError('GGUF_ROPE_SCALING', 'This model scales its positions in an unknown way.', {
      expected: 'llama.rope.scaling.type none or linear, or a rope_freqs tensor',
      found: type,
      hint: 'Use the ONNX form of this model.',
    });
  }
  // 0 is written by converters that mean "not scaled".
  if (factor < 0) throw inconsistent('a rope scaling factor of 0 or more', `${factor}`);
  return { dimension, base, positionDivisor: factor === 0 ? 1 : factor };
}

function inconsistent(expected: string, found: string): ModelFormatError {
  return new ModelFormatError('GGUF_METADATA', 'The numbers of this model do not fit each other.', {
    expected,
    found,
    hint: 'The file is damaged or was made by a faulty converter.',
  });
}

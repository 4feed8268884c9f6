import { UsageError } from '../errors.js';

/** Element types that matrix products are computed in. */
export const ELEMENT_TYPES = ['float32', 'float16', 'bfloat16', 'int8', 'int4'] as const;
export type ElementType = (typeof ELEMENT_TYPES)[number];

/** How many kernels a runtime starts for a layer, beside its matrix products and its attention. */
export interface KernelCounts {
  /** Products that give q, k and v: 1 where they are packed, 3 where not. */
  readonly qkv: 1 | 3;
  /** Products that give gate and up: 1 where they are packed (or there is no gate), 2 where not. */
  readonly gateUp: 1 | 2;
  /** Kernels of one norm. */
  readonly norm: number;
  /** Rotary embedding, copies and masks around the attention itself. */
  readonly attention: number;
  /** Activation and product with the gate. */
  readonly activation: number;
  /** Residual add of one block; 0 where the next norm's kernel does it. */
  readonly residual: number;
  /** Each add more that a group's branches need beside their layers' own; 0 where another kernel does it. */
  readonly join: number;
  /** Beside embedding, layers and head, once a pass: masks, lengths and positions. */
  readonly outside: number;
}

/** A compiler or a runtime with fused operators: what `torch.compile` or ONNX Runtime's own operators come to. */
export const FUSED_KERNELS: KernelCounts = {
  qkv: 1,
  gateUp: 2,
  norm: 1,
  attention: 1,
  activation: 1,
  residual: 0,
  join: 0,
  outside: 0,
};

/**
 * Transformers' LLaMA without compilation, counted in its source: a norm is eight element-wise kernels (to float32,
 * square, mean, add, rsqrt, product, cast, product), the rotary embedding five for each of q and k with two gathers.
 */
export const EAGER_KERNELS: KernelCounts = {
  qkv: 3,
  gateUp: 2,
  norm: 8,
  attention: 13,
  activation: 2,
  residual: 1,
  join: 0,
  outside: 0,
};

/** What a decoder's latency depends on. Batch is 1. */
export interface ModelShape {
  readonly name: string;
  /** Decoder layers. */
  readonly layers: number;
  /** Width of the residual stream. */
  readonly hidden: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  /** Inner width of the FFN. */
  readonly ffn: number;
  /** FFN with a gate (three matrices), or without (two). */
  readonly gated: boolean;
  readonly vocabulary: number;
  /** The output matrix is the embedding; matters for memory only. */
  readonly tied: boolean;
  /** Stored bits a weight of the layers, scales included: 16, or 4.5 for 4-bit blocks of 32 with a float16 scale. */
  readonly weightBits: number;
  /** Stored bits a weight of embedding and output matrix. */
  readonly headBits: number;
  /** What the products are computed in. */
  readonly computeType: ElementType;
  /** Bytes an element of the residual stream. */
  readonly activationBytes: number;
  /** Bytes an element of the key-value cache. */
  readonly kvBytes: number;
  readonly kernels: KernelCounts;
  /**
   * Weights in blocks that have an offset each, as those of an imported GGUF file do: each product of the layers reads,
   * beside its input, sums of it over blocks of so many elements, so many times, padded to whole blocks.
   */
  readonly offsets?: { readonly block: number; readonly digits: number };
}

const FLOAT16 = {
  gated: true,
  tied: false,
  weightBits: 16,
  headBits: 16,
  computeType: 'float16',
  activationBytes: 2,
  kvBytes: 2,
  kernels: FUSED_KERNELS,
} as const;

/** Shapes by name; dimensions from the LLaMA paper (arXiv 2302.13971, table 2) and the models' configurations. */
const SHAPES: readonly ModelShape[] = [
  llama('llama-7b', 32, 4096, 32, 11008),
  llama('llama-13b', 40, 5120, 40, 13824),
  llama('llama-33b', 60, 6656, 52, 17920),
  llama('llama-65b', 80, 8192, 64, 22016),
  { ...llama('qwen1.5-14b', 40, 5120, 40, 13696), vocabulary: 152064 },
  {
    name: 'smollm2-135m',
    layers: 30,
    hidden: 576,
    heads: 9,
    kvHeads: 3,
    headDim: 64,
    ffn: 1536,
    gated: true,
    vocabulary: 49152,
    tied: true,
    weightBits: 4.5,
    headBits: 8.5,
    computeType: 'float32',
    activationBytes: 4,
    kvBytes: 4,
    kernels: { ...FUSED_KERNELS, qkv: 3 },
  },
];

function llama(name: string, layers: number, hidden: number, heads: number, ffn: number): ModelShape {
  return {
    ...FLOAT16,
    name,
    layers,
    hidden,
    heads,
    kvHeads: heads,
    headDim: hidden / heads,
    ffn,
    vocabulary: 32000,
  };
}

/** Names that `modelShape` knows. */
export function modelShapeNames(): string[] {
  return SHAPES.map(({ name }) => name);
}

/**
 * A known model's shape: LLaMA and Qwen in float16, SmolLM2 in 4-bit blocks.
 *
 * @throws UsageError `SHAPE_UNKNOWN`
 */
export function modelShape(name: string): ModelShape {
  const shape = SHAPES.find((one) => one.name === name);
  if (shape !== undefined) return shape;
  throw new UsageError('SHAPE_UNKNOWN', `There is no model shape of the name ${JSON.stringify(name)}.`, {
    expected: `one of ${modelShapeNames().join(', ')}`,
    found: JSON.stringify(name),
    hint: 'name a model folder, or give the dimensions',
  });
}

/**
 * A shape from the `config.json` of a LLaMA-like model; weights, types and kernel counts come from `storage`.
 *
 * @throws UsageError `SHAPE_CONFIG` where a dimension is missing
 */
export function shapeFromConfig(
  config: unknown,
  storage: Pick<
    ModelShape,
    'name' | 'weightBits' | 'headBits' | 'computeType' | 'activationBytes' | 'kvBytes' | 'kernels'
  >,
): ModelShape {
  const fields = typeof config === 'object' && config !== null ? (config as Record<string, unknown>) : {};
  const whole = (name: string, other?: number): number => {
    const value = fields[name] ?? other;
    if (typeof value === 'number' && Number.isSafeInteger(value) && value > 0) return value;
    throw new UsageError('SHAPE_CONFIG', `The model's configuration does not say its shape.`, {
      expected: `${name}, a whole number above 0`,
      found: value === undefined ? 'nothing' : (JSON.stringify(value) ?? 'nothing'),
      hint: `name a known shape: ${modelShapeNames().join(', ')}`,
    });
  };
  const heads = whole('num_attention_heads');
  const hidden = whole('hidden_size');
  return {
    ...storage,
    layers: whole('num_hidden_layers'),
    hidden,
    heads,
    kvHeads: whole('num_key_value_heads', heads),
    headDim: whole('head_dim', hidden / heads),
    ffn: whole('intermediate_size'),
    gated: fields.hidden_act !== 'gelu' && fields.hidden_act !== 'gelu_new',
    vocabulary: whole('vocab_size'),
    tied: fields.tie_word_embeddings === true,
  };
}

/** Weights of one decoder layer, in elements (norms left out: they are a thousandth). */
export function layerParameters(shape: ModelShape): number {
  const { hidden, heads, kvHeads, headDim, ffn, gated } = shape;
  return hidden * headDim * (2 * heads + 2 * kvHeads) + (gated ? 3 : 2) * hidden * ffn;
}

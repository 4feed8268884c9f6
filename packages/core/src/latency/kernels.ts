import type { ElementType, ModelShape } from './shape.js';

/** One pass through the model: the tokens that go in, and those that the cache holds already. Batch 1. */
export interface Pass {
  /** Tokens computed: the prompt's length in a prefill, 1 in a decoding step. */
  readonly tokens: number;
  /** Tokens in the key-value cache before the pass. */
  readonly context: number;
  /** Positions that logits are computed for: the last one (default) or all. */
  readonly logits?: 'last' | 'all';
}

/** Kernels that take longer than an element-wise one of as many bytes, which a profile may have measured by themselves. */
export const SMALL_OPERATORS = ['activation', 'split', 'sum'] as const;
/**
 * `activation`: x · sigmoid(x) and its like. `split`: gate and up, which one product gave, apart. `sum`: over blocks of
 * an input.
 */
export type SmallOperator = (typeof SMALL_OPERATORS)[number];

/** One kernel: what it computes and what it moves. */
export interface Kernel {
  readonly name: string;
  readonly kind: 'product' | 'attention' | 'norm' | 'small';
  /** Of a small one that is more than element-wise. */
  readonly operator?: SmallOperator;
  readonly type: ElementType;
  /** Operations, a multiply-add counted as two. */
  readonly flops: number;
  /** Bytes read and written. */
  readonly bytes: number;
  /** Of a product [m, k] × [k, n]; `weightBits` are the stored bits a weight. */
  readonly product?: {
    readonly m: number;
    readonly k: number;
    readonly n: number;
    readonly weightBits: number;
  };
  /** Of an attention: new tokens, those in the cache, and the heads. */
  readonly attention?: {
    readonly tokens: number;
    readonly context: number;
    readonly heads: number;
    readonly kvHeads: number;
    readonly headDim: number;
  };
}

/** The part of a layer that one device computes: all of it, a share (tensor parallelism), or several layers (wide). */
export interface LayerPart {
  readonly heads: number;
  readonly kvHeads: number;
  readonly ffn: number;
}

/**
 * A layer's part when `layers` layers, side by side as one wide layer, are split among `ways` devices by heads and FFN
 * features (Megatron-LM, arXiv 1909.08053). Heads that do not divide evenly leave one device with more: its part is
 * what counts, and key-value heads fewer than devices are kept by several.
 */
export function layerPart(shape: ModelShape, ways = 1, layers = 1): LayerPart {
  return {
    heads: Math.ceil((shape.heads * layers) / ways),
    kvHeads: Math.ceil((shape.kvHeads * layers) / ways),
    ffn: Math.ceil((shape.ffn * layers) / ways),
  };
}

/** Kernels of an attention block: norm, q, k and v, attention over the cache, o. */
export function attentionKernels(shape: ModelShape, pass: Pass, part: LayerPart): Kernel[] {
  const { hidden, headDim, kernels, activationBytes } = shape;
  const { tokens, context } = pass;
  const q = part.heads * headDim;
  const kv = part.kvHeads * headDim;
  const projections = products(
    shape,
    tokens,
    hidden,
    kernels.qkv === 1 ? { qkv: q + 2 * kv } : { q, k: kv, v: kv },
  );
  // Each token attends to the cache and to the tokens up to itself.
  const pairs = tokens * context + (tokens * (tokens + 1)) / 2;
  const attention: Kernel = {
    name: 'attention',
    kind: 'attention',
    type: shape.computeType,
    flops: 4 * pairs * q,
    bytes: 2 * kv * (context + tokens) * shape.kvBytes + 2 * tokens * q * activationBytes,
    attention: { tokens, context, heads: part.heads, kvHeads: part.kvHeads, headDim },
  };
  return [
    ...norms(shape, tokens),
    ...projections,
    ...small('rotary', kernels.attention, shape, tokens * q),
    attention,
    ...products(shape, tokens, q, { o: hidden }),
    ...small('residual', kernels.residual, shape, tokens * hidden),
  ];
}

/** Kernels of an FFN: norm, gate and up, activation, down. */
export function ffnKernels(shape: ModelShape, pass: Pass, part: LayerPart): Kernel[] {
  const { hidden, kernels, gated } = shape;
  const { tokens } = pass;
  const { ffn } = part;
  const inner = gated ? (kernels.gateUp === 1 ? { gate_up: 2 * ffn } : { gate: ffn, up: ffn }) : { up: ffn };
  return [
    ...norms(shape, tokens),
    ...products(shape, tokens, hidden, inner),
    ...activationKernels(shape, tokens * ffn),
    ...products(shape, tokens, ffn, { down: hidden }),
    ...small('residual', kernels.residual, shape, tokens * hidden),
  ];
}

/**
 * Activation and product with the gate, of so many elements each. From three kernels on, gate and up come from one product
 * and are cut apart first; what is one kernel or two is priced as element-wise kernels where no activation was measured.
 */
function activationKernels(shape: ModelShape, elements: number): Kernel[] {
  const count = shape.kernels.activation;
  if (count < 3) {
    return small('activation', count, shape, elements).map((kernel, i) =>
      i === 0 ? { ...kernel, operator: 'activation' as const } : kernel,
    );
  }
  const [split, activation] = (['split', 'activation'] as const).map((operator, i) =>
    elementwise(operator, 1, shape, (i === 0 ? 4 : 2) * elements).map((kernel) => ({ ...kernel, operator })),
  );
  return [...split!, ...activation!, ...elementwise('gate', count - 2, shape, 3 * elements)];
}

/** The lookup of the tokens' embeddings, and what is done once a pass. */
export function embeddingKernels(shape: ModelShape, pass: Pass): Kernel[] {
  return [
    ...small('outside', shape.kernels.outside, shape, pass.tokens),
    ...small('embedding', 1, shape, pass.tokens * shape.hidden),
  ];
}

/** So many adds to the residual stream that a group's branches need beside their layers' own. */
export function joinKernels(shape: ModelShape, pass: Pass, adds: number): Kernel[] {
  return elementwise('add', adds * shape.kernels.join, shape, 3 * pass.tokens * shape.hidden);
}

/** The products and attentions that a model's passes consist of, each once. */
export interface KernelShapes {
  readonly products: readonly NonNullable<Kernel['product']>[];
  readonly attentions: readonly NonNullable<Kernel['attention']>[];
}

/**
 * What to measure of a device for a model: the shapes of its kernels in these passes, of single layers and of so many
 * side by side as one.
 */
export function kernelShapes(
  shape: ModelShape,
  passes: readonly Pass[],
  widths: readonly number[] = [1],
): KernelShapes {
  const kernels = passes.flatMap((pass) => [
    ...widths.flatMap((width) => {
      const part = layerPart(shape, 1, width);
      return [...attentionKernels(shape, pass, part), ...ffnKernels(shape, pass, part)];
    }),
    ...headKernels(shape, pass),
  ]);
  return {
    products: distinct(kernels.map(({ product }) => product)),
    attentions: distinct(kernels.map(({ attention }) => attention)),
  };
}

function distinct<T>(found: readonly (T | undefined)[]): T[] {
  const known = new Map(found.flatMap((one) => (one === undefined ? [] : [[JSON.stringify(one), one]])));
  return [...known.values()];
}

/** Kernels of final norm and output matrix, the vocabulary split among `ways` devices. */
export function headKernels(shape: ModelShape, pass: Pass, ways = 1): Kernel[] {
  const rows = headRows(pass);
  return [
    ...norms(shape, pass.tokens),
    product('head', shape, rows, shape.hidden, Math.ceil(shape.vocabulary / ways), shape.headBits),
  ];
}

/** Positions that logits are computed for. */
export function headRows({ tokens, logits }: Pass): number {
  return logits === 'all' ? tokens : 1;
}

/** Products of one input [m, k], by name the columns of each; blocks with offsets read sums of the input as well. */
function products(
  shape: ModelShape,
  m: number,
  k: number,
  columns: Readonly<Record<string, number>>,
): Kernel[] {
  const { offsets } = shape;
  const of = (features: number) =>
    Object.entries(columns).map(([name, n]) => product(name, shape, m, features, n));
  if (offsets === undefined) return of(k);
  const { block, digits } = offsets;
  const blocks = Math.ceil(k / block);
  const digit = Math.ceil(blocks / block) * block;
  const features = k + digits * digit;
  return [
    // The input is seen as blocks, and those are summed.
    ...elementwise('blocks', 1, shape, 0),
    ...elementwise('sums', 1, shape, m * (k + blocks)).map((kernel) => ({
      ...kernel,
      operator: 'sum' as const,
    })),
    ...(digit > blocks ? elementwise('pad', 1, shape, m * (blocks + digit)) : []),
    ...elementwise('concat', 1, shape, 2 * m * features),
    ...of(features),
  ];
}

function product(
  name: string,
  shape: ModelShape,
  m: number,
  k: number,
  n: number,
  weightBits = shape.weightBits,
): Kernel {
  return {
    name,
    kind: 'product',
    type: shape.computeType,
    flops: 2 * m * k * n,
    bytes: (k * n * weightBits) / 8 + m * (k + n) * shape.activationBytes,
    product: { m, k, n, weightBits },
  };
}

/** A norm, which adds to the stream as well where no kernel of its own does: two values in, two out. */
function norms(shape: ModelShape, tokens: number): Kernel[] {
  const { norm, residual } = shape.kernels;
  const moved = (residual === 0 ? 4 : 2) * tokens * shape.hidden;
  return elementwise('norm', norm, shape, moved).map((kernel) => ({ ...kernel, kind: 'norm' as const }));
}

/** Element-wise kernels, each of which reads and writes `elements`. */
function small(name: string, count: number, shape: ModelShape, elements: number): Kernel[] {
  return elementwise(name, count, shape, 2 * elements);
}

/** Kernels that move so many elements in and out. */
function elementwise(name: string, count: number, shape: ModelShape, moved: number): Kernel[] {
  return Array.from({ length: count }, () => ({
    name,
    kind: 'small' as const,
    type: shape.computeType,
    flops: 0,
    bytes: moved * shape.activationBytes,
  }));
}

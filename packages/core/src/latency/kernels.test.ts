import { describe, expect, it } from 'vitest';
import {
  attentionKernels,
  embeddingKernels,
  ffnKernels,
  headKernels,
  joinKernels,
  type Kernel,
  kernelShapes,
  layerPart,
} from './kernels.js';
import { EAGER_KERNELS, layerParameters, modelShape, shapeFromConfig } from './shape.js';

const pass = { tokens: 1, context: 99 };
const weights = (kernels: readonly Kernel[]) =>
  kernels.reduce((sum, { product }) => sum + (product === undefined ? 0 : product.k * product.n), 0);
const layer = (shape: ReturnType<typeof modelShape>, ways = 1, layers = 1) => {
  const part = layerPart(shape, ways, layers);
  return [...attentionKernels(shape, pass, part), ...ffnKernels(shape, pass, part)];
};

it('holds the weights that the models have', () => {
  // Parameters without norms, in millions, as published (LLaMA: arXiv 2302.13971, table 2).
  for (const [name, millions] of [
    ['llama-7b', 6738],
    ['llama-13b', 13016],
    ['llama-33b', 32528],
    ['llama-65b', 65285],
  ] as const) {
    const shape = modelShape(name);
    const all = shape.layers * layerParameters(shape) + 2 * shape.vocabulary * shape.hidden;
    expect(Math.abs(all / 1e6 - millions)).toBeLessThan(millions * 0.001);
    expect(weights(layer(shape))).toBe(layerParameters(shape));
    expect(weights(layer({ ...shape, kernels: EAGER_KERNELS }))).toBe(layerParameters(shape));
  }
});

it('counts operations and bytes', () => {
  const shape = modelShape('llama-7b');
  const products = layer(shape).filter(({ kind }) => kind === 'product');
  expect(products.reduce((sum, { flops }) => sum + flops, 0)).toBe(2 * layerParameters(shape));
  const attention = layer(shape).find(({ kind }) => kind === 'attention')!;
  expect(attention.flops).toBe(4 * 100 * 4096);
  // k and v of 100 tokens, q in and out.
  expect(attention.bytes).toBe(2 * 100 * 4096 * 2 + 2 * 4096 * 2);
});

it('attends to the tokens before only', () => {
  const shape = modelShape('llama-7b');
  const kernels = attentionKernels(shape, { tokens: 3, context: 0 }, layerPart(shape));
  expect(kernels.find(({ kind }) => kind === 'attention')!.flops).toBe(4 * (1 + 2 + 3) * 4096);
});

it('cuts gate and up apart where one product gave both', () => {
  const shape = modelShape('smollm2-135m');
  const of = (activation: number) => {
    const counted = { ...shape, kernels: { ...shape.kernels, activation } };
    return ffnKernels(counted, pass, layerPart(counted))
      .filter(({ kind }) => kind === 'small')
      .map(({ name, operator, bytes }) => [name, operator, bytes / 4 / 1536]);
  };
  expect(of(1)).toEqual([['activation', 'activation', 2]]);
  expect(of(2)).toEqual([
    ['activation', 'activation', 2],
    ['activation', undefined, 2],
  ]);
  // Two halves in and out; one; two in, one out.
  expect(of(3)).toEqual([
    ['split', 'split', 4],
    ['activation', 'activation', 2],
    ['gate', undefined, 3],
  ]);
});

describe('parts', () => {
  it('of a split layer are shares of it, rounded up', () => {
    const shape = modelShape('smollm2-135m');
    expect(layerPart(shape, 3)).toEqual({ heads: 3, kvHeads: 1, ffn: 512 });
    expect(layerPart(shape, 2)).toEqual({ heads: 5, kvHeads: 2, ffn: 768 });
    expect(layerPart(shape, 4).kvHeads).toBe(1);
  });

  it('of a wide layer are those of its members, with one set of small kernels', () => {
    const shape = modelShape('llama-7b');
    expect(weights(layer(shape, 1, 2))).toBe(2 * layerParameters(shape));
    expect(layer(shape, 1, 2).length).toBe(layer(shape).length);
  });
});

it('computes logits for the last position unless all are asked for', () => {
  const shape = modelShape('llama-7b');
  const rows = (logits?: 'last' | 'all') =>
    headKernels(shape, { tokens: 7, context: 0, ...(logits && { logits }) }).at(-1)!.product!;
  expect(rows()).toMatchObject({ m: 1, k: 4096, n: 32000 });
  expect(rows('all').m).toBe(7);
  expect(embeddingKernels(shape, pass)).toHaveLength(1);
});

it('starts four times as many kernels eagerly', () => {
  const shape = modelShape('llama-7b');
  expect(layer(shape).length).toBe(10);
  expect(layer({ ...shape, kernels: EAGER_KERNELS }).length).toBe(41);
});

it('reads sums of each input, made once, where blocks have offsets', () => {
  const shape = { ...modelShape('smollm2-135m'), offsets: { block: 32, digits: 2 } };
  const plain = layer(modelShape('smollm2-135m'));
  const kernels = layer(shape);
  const names = (of: readonly Kernel[]) => of.map(({ name }) => name);
  // q, k and v read one input, gate and up another, o and down one each: cut, summed, padded, put together.
  expect(kernels.length - plain.length).toBe(4 * 4);
  for (const name of ['blocks', 'sums', 'pad', 'concat']) {
    expect(names(kernels).filter((other) => other === name)).toHaveLength(4);
  }
  const productOf = (name: string) => kernels.find((kernel) => kernel.name === name)?.product;
  expect(productOf('q')).toMatchObject({ m: 1, k: 576 + 2 * 32, n: 576 });
  expect(productOf('down')).toMatchObject({ m: 1, k: 1536 + 2 * 64, n: 576 });
  const even = { ...shape, hidden: 1024, ffn: 4096, heads: 16, kvHeads: 16 };
  expect(names(layer(even))).not.toContain('pad');
});

it('counts what is done once a pass, and adds that join branches, where they are kernels', () => {
  const shape = modelShape('llama-7b');
  const counted = { ...shape, kernels: { ...shape.kernels, outside: 7, join: 1 } };
  expect(embeddingKernels(counted, pass)).toHaveLength(8);
  expect(joinKernels(shape, pass, 3)).toEqual([]);
  const adds = joinKernels(counted, { tokens: 2, context: 0 }, 3);
  expect(adds.map(({ bytes }) => bytes)).toEqual(Array(3).fill(3 * 2 * 4096 * 2));
});

it('lists what there is to measure of a model, each shape once', () => {
  const { products, attentions } = kernelShapes(modelShape('llama-7b'), [pass], [1, 2]);
  expect(products.map(({ k, n }) => [k, n])).toEqual([
    [4096, 3 * 4096],
    [4096, 4096],
    [4096, 11008],
    [11008, 4096],
    [4096, 6 * 4096],
    [8192, 4096],
    [4096, 2 * 11008],
    [22016, 4096],
    [4096, 32000],
  ]);
  expect(attentions.map(({ heads, context }) => [heads, context])).toEqual([
    [32, 99],
    [64, 99],
  ]);
});

describe('shapes from configurations', () => {
  const { name, weightBits, headBits, computeType, activationBytes, kvBytes, kernels } =
    modelShape('smollm2-135m');
  const storage = { name, weightBits, headBits, computeType, activationBytes, kvBytes, kernels };
  const config = {
    num_hidden_layers: 30,
    hidden_size: 576,
    num_attention_heads: 9,
    num_key_value_heads: 3,
    intermediate_size: 1536,
    vocab_size: 49152,
    hidden_act: 'silu',
    tie_word_embeddings: true,
  };

  it('are those of the model', () => {
    expect(shapeFromConfig(config, storage)).toEqual(modelShape('smollm2-135m'));
  });

  it('name what is missing', () => {
    const { intermediate_size: _, ...rest } = config;
    expect(() => shapeFromConfig(rest, storage)).toThrow(/intermediate_size/);
    expect(() => shapeFromConfig(null, storage)).toThrow(/num_attention_heads/);
    expect(() => shapeFromConfig({ ...config, hidden_size: 1.5 }, storage)).toThrow(/hidden_size/);
  });

  it('are known by name', () => {
    expect(() => modelShape('gpt-5')).toThrow(/llama-7b/);
  });
});

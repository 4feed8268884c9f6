import { join } from 'node:path';
import {
  FUSED_KERNELS,
  type KernelCounts,
  type ModelShape,
  modelShape,
  modelShapeNames,
  shapeFromConfig,
  UsageError,
} from '@cqil/core';
import type { BranchAnatomy, LayerAnatomy, Model, ModelSource, Node } from '@cqil/planner';
import { openModel, readJson } from '../model.js';

/** Operators whose second input are weights that they multiply by. */
const PRODUCTS = new Set(['MatMul', 'Gemm', 'MatMulNBits', 'MatMulInteger', 'DynamicQuantizeMatMul']);

/** The shape of a model by name, or of a folder: dimensions from its config, bits and kernels from its graph. */
export async function shapeOf(model: string, dtype: string | undefined): Promise<ModelShape> {
  if (modelShapeNames().includes(model)) return modelShape(model);
  const { source, model: graph, anatomy } = await openModel(model, dtype);
  const planner = await import('@cqil/planner');
  /** Of what products multiply by, scales and zero points included. */
  const bytesOf = (nodes: readonly Node[]): number => {
    const products = nodes.filter(({ opType }) => PRODUCTS.has(opType));
    const names = new Set(products.flatMap(({ input }) => input));
    return [...names].reduce((sum, name) => {
      const tensor = graph.graph.initializers.get(name);
      if (tensor === undefined) return sum;
      return sum + (planner.rawByteLength(name, tensor.dataType, tensor.dims.map(BigInt)) ?? 0);
    }, 0);
  };
  const first = anatomy.layers[0] as LayerAnatomy;
  // What the cache holds tells what the graph computes in.
  const cache = graph.graph.feeds.find(({ name }) => first.cache.inputs.includes(name));
  const float16 = cache !== undefined && planner.elementType(cache) === planner.DataType.FLOAT16;
  const bytes = float16 ? 2 : 4;
  const config = { intermediate_size: innerWidth(graph, first, planner), ...(await configOf(source)) };
  const rough = shapeFromConfig(config, {
    name: model,
    weightBits: 8 * bytes,
    headBits: 8 * bytes,
    computeType: float16 ? 'float16' : 'float32',
    activationBytes: bytes,
    kvBytes: bytes,
    kernels: kernelsOf(graph, first),
  });
  const { hidden, headDim, heads, kvHeads, ffn, gated, vocabulary } = rough;
  const parameters = hidden * headDim * 2 * (heads + kvHeads) + (gated ? 3 : 2) * hidden * ffn;
  const layerBytes = bytesOf([...(first.attention?.nodes ?? []), ...(first.ffn?.nodes ?? [])]);
  const inLayers = new Set(
    anatomy.layers.flatMap(({ attention, ffn }) => [...(attention?.nodes ?? []), ...(ffn?.nodes ?? [])]),
  );
  const head = graph.graph.nodes.findLast((node) => !inLayers.has(node) && bytesOf([node]) > 0);
  return {
    ...rough,
    layers: anatomy.layers.length,
    weightBits: layerBytes === 0 ? rough.weightBits : (8 * layerBytes) / parameters,
    headBits: head === undefined ? rough.headBits : (8 * bytesOf([head])) / (hidden * vocabulary),
  };
}

/**
 * The model's dimensions as its config has them, under the names of `config.json`.
 *
 * @throws UsageError `SHAPE_CONFIG` for a graph without a config
 */
async function configOf({ root, layout, sideFiles }: ModelSource): Promise<Record<string, unknown>> {
  const name = layout === 'genai' ? 'genai_config.json' : 'config.json';
  if (!sideFiles.includes(name)) {
    throw new UsageError('SHAPE_CONFIG', `There is no ${name} to read the model's shape from.`, {
      expected: `a folder with a ${name}`,
      found: root,
      hint: `name a known shape: ${modelShapeNames().join(', ')}`,
    });
  }
  const config = ((await readJson(join(root, name))) ?? {}) as Record<string, unknown>;
  if (layout !== 'genai') return config;
  const model = (config.model ?? {}) as Record<string, unknown>;
  const decoder = (model.decoder ?? {}) as Record<string, unknown>;
  return { ...decoder, head_dim: decoder.head_size, vocab_size: model.vocab_size };
}

/** Inner width of the FFN, which not every config says: what its last product sums over. */
function innerWidth(
  { graph }: Model,
  { ffn }: LayerAnatomy,
  { intAttribute }: typeof import('@cqil/planner'),
): number | undefined {
  const down = ffn?.nodes.findLast(({ opType }) => PRODUCTS.has(opType));
  if (down === undefined) return undefined;
  if (down.opType === 'MatMulNBits') return intAttribute(down, 'K');
  const rows = graph.initializers.get(down.input[1] ?? '')?.dims[0];
  return rows === undefined ? undefined : Number(rows);
}

/** How many kernels the graph has for a layer: a node is a kernel. */
function kernelsOf({ graph }: Model, { attention, ffn }: LayerAnatomy): KernelCounts {
  const count = (branch: BranchAnatomy | undefined, operator: (name: string) => boolean) =>
    branch?.nodes.filter(({ opType, input }) => operator(opType) && graph.initializers.has(input[1] ?? ''))
      .length ?? 0;
  // Beside 4-bit products, float ones are corrections to them (an import's block sums), small like other nodes.
  const products = (branch: BranchAnatomy | undefined) =>
    count(branch, (name) => name === 'MatMulNBits') || count(branch, (name) => PRODUCTS.has(name));
  const qkv = products(attention) > 3 ? 3 : 1;
  const gateUp = products(ffn) > 2 ? 2 : 1;
  // The products, the norm and the attention itself are counted by themselves.
  const others = (branch: BranchAnatomy | undefined, counted: number) =>
    Math.max(0, (branch?.nodes.length ?? 0) - counted);
  return {
    ...FUSED_KERNELS,
    qkv,
    gateUp,
    attention: others(attention, qkv + 3),
    activation: others(ffn, gateUp + 2),
  };
}

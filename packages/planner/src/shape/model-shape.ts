import path from 'node:path';
import {
  FUSED_KERNELS,
  type KernelCounts,
  type ModelShape,
  modelShapeNames,
  shapeFromConfig,
  UsageError,
} from '@cqil/core';
import { type Anatomy, analyze, type BranchAnatomy, type LayerAnatomy } from '../anatomy/index.js';
import { layoutOfProduct } from '../block-offsets/index.js';
import {
  DataType,
  elementType,
  intAttribute,
  type Model,
  type Node,
  rawByteLength,
  readModel,
} from '../onnx/index.js';
import { readJsonIfThere } from '../source/files.js';
import type { ModelSource } from '../source/index.js';
import { blockSizeOf, digitsBefore, offsetsOf, sumNodes } from './offsets.js';

/** Operators whose second input are weights that they multiply by. */
const PRODUCTS = new Set(['MatMul', 'Gemm', 'MatMulNBits', 'MatMulInteger', 'DynamicQuantizeMatMul']);

/**
 * The shape of a model on disk, for predictions of its latency: dimensions from its config, bits, kernels and offsets from
 * its graph.
 *
 * @param model the graph of `source` and its layers, where they were read before
 * @throws UsageError `SHAPE_CONFIG` for a graph without a config; AnatomyError, ModelFormatError
 */
export async function shapeOfModel(
  source: ModelSource,
  model?: { readonly model: Model; readonly anatomy: Anatomy },
): Promise<ModelShape> {
  const graph = model?.model ?? (await readModel(source.onnxFile));
  const anatomy = model?.anatomy ?? analyze(graph);
  /** Of what products multiply by, scales and zero points included. */
  const bytesOf = (nodes: readonly Node[]): number => {
    const products = nodes.filter(({ opType }) => PRODUCTS.has(opType));
    const names = new Set(products.flatMap(({ input }) => input));
    return [...names].reduce((sum, name) => {
      const tensor = graph.graph.initializers.get(name);
      if (tensor === undefined) return sum;
      return sum + (rawByteLength(name, tensor.dataType, tensor.dims.map(BigInt)) ?? 0);
    }, 0);
  };
  const first = anatomy.layers[0] as LayerAnatomy;
  const offsets = offsetsOf(graph, first);
  // What the cache holds tells what the graph computes in.
  const cache = graph.graph.feeds.find(({ name }) => first.cache.inputs.includes(name));
  const float16 = cache !== undefined && elementType(cache) === DataType.FLOAT16;
  const bytes = float16 ? 2 : 4;
  const config = { intermediate_size: innerWidth(graph, first), ...(await configOf(source)) };
  const rough = shapeFromConfig(config, {
    name: path.basename(source.root),
    weightBits: 8 * bytes,
    headBits: 8 * bytes,
    computeType: float16 ? 'float16' : 'float32',
    activationBytes: bytes,
    kvBytes: bytes,
    kernels: kernelsOf(graph, first, offsets !== undefined, outsideOf(graph, anatomy.layers)),
  });
  const { hidden, headDim, heads, kvHeads, ffn, gated, vocabulary } = rough;
  const inLayer = [...(first.attention?.nodes ?? []), ...(first.ffn?.nodes ?? [])];
  // Products of blocks may have more weights than the layer has parameters: those of the sums of blocks.
  const inBlocks = inLayer.every(({ opType }) => opType === 'MatMulNBits' || !PRODUCTS.has(opType));
  const parameters =
    !inBlocks || inLayer.every(({ opType }) => opType !== 'MatMulNBits')
      ? hidden * headDim * 2 * (heads + kvHeads) + (gated ? 3 : 2) * hidden * ffn
      : inLayer.reduce(
          (sum, node) => sum + (intAttribute(node, 'K') ?? 0) * (intAttribute(node, 'N') ?? 0),
          0,
        );
  const layerBytes = bytesOf(inLayer);
  const inLayers = new Set(
    anatomy.layers.flatMap(({ attention, ffn }) => [...(attention?.nodes ?? []), ...(ffn?.nodes ?? [])]),
  );
  const head = graph.graph.nodes.findLast((node) => !inLayers.has(node) && bytesOf([node]) > 0);
  return {
    ...rough,
    layers: anatomy.layers.length,
    ...(offsets === undefined ? {} : { offsets }),
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
  const config = ((await readJsonIfThere(path.join(root, name))) ?? {}) as Record<string, unknown>;
  if (layout !== 'genai') return config;
  const model = (config.model ?? {}) as Record<string, unknown>;
  const decoder = (model.decoder ?? {}) as Record<string, unknown>;
  return { ...decoder, head_dim: decoder.head_size, vocab_size: model.vocab_size };
}

/** Inner width of the FFN, which not every config says: what its last product sums over. */
function innerWidth({ graph }: Model, { ffn }: LayerAnatomy): number | undefined {
  const down = ffn?.nodes.findLast(({ opType }) => PRODUCTS.has(opType));
  if (down === undefined) return undefined;
  if (down.opType === 'MatMulNBits') {
    const features = intAttribute(down, 'K') ?? 0;
    if (digitsBefore(graph, down) === undefined) return features;
    return layoutOfProduct(features, intAttribute(down, 'bits') ?? 4, blockSizeOf(down))?.inFeatures;
  }
  const rows = graph.initializers.get(down.input[1] ?? '')?.dims[0];
  return rows === undefined ? undefined : Number(rows);
}

/**
 * How many kernels the graph has for a layer: a node is a kernel. What makes sums of blocks (an import's) is counted where
 * the shape says that there are offsets.
 */
function kernelsOf(
  { graph }: Model,
  { attention, ffn }: LayerAnatomy,
  offsets: boolean,
  outside: number,
): KernelCounts {
  const count = (branch: BranchAnatomy | undefined, operator: (name: string) => boolean) =>
    branch?.nodes.filter(({ opType, input }) => operator(opType) && graph.initializers.has(input[1] ?? ''))
      .length ?? 0;
  const products = (branch: BranchAnatomy | undefined) =>
    count(branch, (name) => name === 'MatMulNBits') || count(branch, (name) => PRODUCTS.has(name));
  const qkv = products(attention) > 3 ? 3 : 1;
  const gateUp = products(ffn) > 2 ? 2 : 1;
  const sums = (branch: BranchAnatomy | undefined) => (offsets ? sumNodes(graph, branch?.nodes ?? []) : 0);
  // The products, the norm and the attention itself are counted by themselves.
  const others = (branch: BranchAnatomy | undefined, counted: number) =>
    Math.max(0, (branch?.nodes.length ?? 0) - counted - fused(branch) - (hasNorm(branch) ? 1 : 0));
  return {
    ...FUSED_KERNELS,
    qkv,
    gateUp,
    attention: others(attention, qkv + 2 + sums(attention)),
    activation: others(ffn, gateUp + 1 + sums(ffn)),
    join: 1,
    outside,
  };
}

/** Nodes that ONNX Runtime makes one with the node before: x · sigmoid(x). */
function fused(branch: BranchAnatomy | undefined): number {
  const nodes = branch?.nodes ?? [];
  const sigmoids = nodes.filter(({ opType }) => opType === 'Sigmoid');
  return sigmoids.filter(({ input, output }) =>
    nodes.some(
      (node) =>
        node.opType === 'Mul' && node.input.includes(input[0] ?? '') && node.input.includes(output[0] ?? ''),
    ),
  ).length;
}

/** Whether a branch's norm is a node of its own, and does not add to the stream as well. */
function hasNorm(branch: BranchAnatomy | undefined): boolean {
  return branch?.nodes.some(({ output }) => output.includes(branch.normOutput ?? '')) ?? false;
}

/** Nodes beside embedding, layers, norms and head. */
function outsideOf({ graph }: Model, layers: readonly LayerAnatomy[]): number {
  const branches = layers.flatMap(({ attention, ffn }) =>
    [attention, ffn].filter((one) => one !== undefined),
  );
  const inLayers = branches.reduce((sum, branch) => sum + branch.nodes.length + (hasNorm(branch) ? 0 : 1), 0);
  // Embedding, last norm and head.
  return Math.max(0, graph.nodes.length - inLayers - 3);
}

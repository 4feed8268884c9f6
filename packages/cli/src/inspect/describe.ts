import type { Plan } from '@cqil/core';
import type { Anatomy, LayerAnatomy, Model, ModelSource, Node } from '@cqil/planner';
import { findRefits, type RefitDescription } from './refits.js';

/** What `cqil inspect --json` prints about a model. */
export interface ModelDescription {
  readonly model: {
    readonly root: string;
    readonly graph: string;
    readonly layout: ModelSource['layout'];
    readonly dtype: ModelSource['dtype'];
    readonly available: readonly string[];
    readonly sideFiles: readonly string[];
  };
  readonly architecture: {
    /** `model_type` of config.json, or the type of genai_config.json. */
    readonly type: string | undefined;
    readonly producer: string;
    readonly irVersion: number;
    /** Operator set version by domain; `ai.onnx` is ONNX's own. */
    readonly opsets: Readonly<Record<string, number>>;
    readonly inputs: readonly string[];
    readonly outputs: readonly string[];
  };
  /** How many layers the model has; in a rewritten one, the original's. */
  readonly layerCount: number;
  /** Each layer; empty for a rewritten model, whose groups are not one layer after the other. */
  readonly layers: readonly LayerDescription[];
  /** How often each operator occurs in the graph, by name. */
  readonly operators: Readonly<Record<string, number>>;
  readonly sizes: {
    /** Of all weights, each counted once, in bytes. */
    readonly weightBytes: number;
    /** Values in weights of at least two dimensions, packed 4-bit ones included. */
    readonly parameters: number;
    /** Bytes of weights by element type. */
    readonly byType: Readonly<Record<string, number>>;
  };
  readonly grouping: {
    /** Runs of neighbouring layers that may be grouped in any way, `[first, one past the last]`. */
    readonly runs: readonly (readonly [number, number])[];
    /** Whether an FFN can be given attention outputs of other layers; not so in parallel blocks. */
    readonly bypass: boolean;
    /** Layers that cannot be in a group, with the reason. */
    readonly refused: readonly { readonly layer: number; readonly reason: string }[];
  };
  /** The plan the graph was rewritten by, when it was. */
  readonly plan?: Plan;
  /** Matrices that recovery refitted, when it did, by layer. */
  readonly refitted?: readonly RefitDescription[];
}

export interface LayerDescription {
  readonly index: number;
  readonly kind: LayerAnatomy['kind'];
  readonly attentionNorm: string;
  readonly ffnNorm: string;
  /** Norms behind the branches, before they are added (Gemma, OLMo 2). */
  readonly postNorms: boolean;
  readonly nodes: number;
  readonly cacheInputs: readonly string[];
  readonly cacheOutputs: readonly string[];
  readonly groupable: boolean;
}

export interface DescribeParts {
  readonly source: ModelSource;
  readonly model: Model;
  /** Absent for a rewritten model. */
  readonly anatomy: Anatomy | undefined;
  /** `model_type` as a config tells it. */
  readonly type: string | undefined;
  /** What the graph was rewritten by. */
  readonly plan: Plan | undefined;
  /** The name of an element type. */
  readonly typeName: (dataType: number) => string;
}

export function describeModel({
  source,
  model,
  anatomy,
  type,
  plan,
  typeName,
}: DescribeParts): ModelDescription {
  const { graph } = model;
  const layers = anatomy?.layers ?? [];
  const refitted = findRefits(graph.nodes);
  return {
    model: {
      root: source.root,
      graph: source.onnxRelative,
      layout: source.layout,
      dtype: source.dtype,
      available: source.available,
      sideFiles: source.sideFiles,
    },
    architecture: {
      type,
      producer: model.rest.producerName,
      irVersion: Number(model.rest.irVersion),
      opsets: Object.fromEntries(
        [...model.opsets].map(([domain, version]) => [domain || 'ai.onnx', version]),
      ),
      inputs: graph.feeds.map(({ name }) => name),
      outputs: graph.outputs.map(({ name }) => name),
    },
    layerCount: plan?.layers ?? layers.length,
    layers: layers.map(describeLayer),
    operators: countOperators(graph.nodes),
    sizes: measure(model, typeName),
    grouping: {
      runs: groupableRuns(layers),
      bypass: layers.some(({ kind, ungroupable }) => kind === 'sequential' && ungroupable === undefined),
      refused: layers.flatMap(({ index, ungroupable }) =>
        ungroupable === undefined ? [] : [{ layer: index, reason: ungroupable }],
      ),
    },
    ...(plan === undefined ? {} : { plan }),
    ...(refitted.length === 0 ? {} : { refitted }),
  };
}

function describeLayer(layer: LayerAnatomy): LayerDescription {
  const { attention, ffn } = layer;
  return {
    index: layer.index,
    kind: layer.kind,
    attentionNorm: attention?.norm ?? 'none',
    ffnNorm: ffn?.norm ?? (layer.kind === 'parallel' ? (attention?.norm ?? 'none') : 'none'),
    postNorms: [attention, ffn].some((branch) => branch !== undefined && branch.postNorm !== 'none'),
    nodes: new Set([...(attention?.nodes ?? []), ...(ffn?.nodes ?? [])]).size,
    cacheInputs: layer.cache.inputs,
    cacheOutputs: layer.cache.outputs,
    groupable: layer.ungroupable === undefined,
  };
}

function countOperators(nodes: readonly Node[]): Record<string, number> {
  const counts = new Map<string, number>();
  for (const { domain, opType } of nodes) {
    const name = domain === '' || domain === 'ai.onnx' ? opType : `${domain}::${opType}`;
    counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  return Object.fromEntries([...counts].sort(([a, m], [b, n]) => n - m || (a < b ? -1 : 1)));
}

function measure({ graph }: Model, typeName: (dataType: number) => string): ModelDescription['sizes'] {
  const seen = new Set<string>();
  const byType = new Map<string, number>();
  let weightBytes = 0;
  let parameters = 0;
  const packed = packedWeights(graph.nodes);
  for (const [name, tensor] of graph.initializers) {
    const key = tensor.data?.key ?? name;
    if (seen.has(key)) continue;
    seen.add(key);
    weightBytes += tensor.byteLength;
    const type = typeName(tensor.dataType);
    byType.set(type, (byType.get(type) ?? 0) + tensor.byteLength);
    parameters += packed.get(name) ?? (tensor.dims.length >= 2 ? tensor.elementCount : 0);
  }
  return { weightBytes, parameters, byType: Object.fromEntries([...byType].sort(([, m], [, n]) => n - m)) };
}

/** Of block-quantised products: how many values the packed weight stands for, none for scales and zero points. */
function packedWeights(nodes: readonly Node[]): Map<string, number> {
  const counts = new Map<string, number>();
  for (const node of nodes) {
    if (node.opType !== 'MatMulNBits') continue;
    const [, weight, ...details] = node.input;
    const value = (name: string): number =>
      Number(node.attribute.find((entry) => entry.name === name)?.i ?? 0);
    if (weight !== undefined) counts.set(weight, value('N') * value('K'));
    for (const detail of details) counts.set(detail, 0);
  }
  return counts;
}

function groupableRuns(layers: readonly LayerAnatomy[]): [number, number][] {
  const runs: [number, number][] = [];
  for (const { index, ungroupable } of layers) {
    if (ungroupable !== undefined) continue;
    const last = runs.at(-1);
    if (last !== undefined && last[1] === index) last[1] = index + 1;
    else runs.push([index, index + 1]);
  }
  return runs.filter(([first, end]) => end - first >= 2);
}

import { DataType, Model, makeValueInfo } from '../onnx/index.js';
import { type FloatType, vectorData } from './float-data.js';
import { GraphBuilder } from './graph-builder.js';
import { floatToHalf } from './half.js';
import { type LinearEmitter, weightName } from './linear.js';
import type { LlamaParameters } from './parameters.js';
import { rotaryFrequencies, rotaryTable } from './rotary.js';
import {
  type LayerWeights,
  type LinearLayer,
  type LlamaWeights,
  type MatrixRows,
  partsOf,
  type VectorRows,
} from './weights.js';

/** How weights are stored; everything else of the graph is the same for all. */
export interface Storage {
  /** Type of activations, norms and KV cache. */
  readonly floatType: FloatType;
  /** Whether the parts of a layer can stand in one matrix. */
  readonly packs: (layer: LinearLayer) => boolean;
  readonly linear: LinearEmitter;
  /** Adds the lookup of `input_ids` in the embedding table; returns the embeddings. */
  readonly embedding: (builder: GraphBuilder, name: string, ids: string, table: MatrixRows) => string;
  /** Adds the output matrix of a model that uses its embedding table for it. */
  readonly tiedOutput: (builder: GraphBuilder, name: string, input: string, table: MatrixRows) => string;
}

const IR_VERSION = 10;
const OPSET = 21;

/** A masked score: far below any real one, and still finite after a score is added in half precision. */
const MASKED: Readonly<Record<FloatType, number>> = { float32: -1e9, float16: -30000 };

/** Values that all layers share. */
interface Shared {
  readonly sequenceLengths: string;
  readonly totalLength: string;
  readonly attentionBias: string;
  readonly cos: string;
  readonly sin: string;
}

/**
 * The graph of a `llama` decoder in the operators that ONNX Runtime is fast with.
 *
 * Inputs: `input_ids` `[batch, seq]`, `attention_mask` `[batch, past + seq]` (int64, 0 where there is padding,
 * left or right), `num_logits_to_keep` (scalar; 0 keeps all), `past_key_values.N.key|value`
 * `[batch, kv_heads, past, head_dim]`. Outputs: `logits` `[batch, kept, vocabulary]` in float32 and
 * `present.N.key|value`.
 *
 * @param ropeFactors values of the `rope_freqs` tensor, where there is one
 */
export function buildLlamaGraph(
  p: LlamaParameters,
  weights: LlamaWeights,
  storage: Storage,
  ropeFactors: Float32Array | undefined,
): Model {
  const model = Model.create({
    producer: 'cqil',
    irVersion: IR_VERSION,
    opsets: { '': OPSET, 'com.microsoft': 1 },
  });
  const b = new GraphBuilder(model.graph, storage.floatType);
  addInterface(b, p);
  const shared = addShared(b, p, ropeFactors);
  const table = weights.embedding;
  let residual = storage.embedding(b, '/model/embed_tokens', 'input_ids', table);
  /** What the layer before has not added to the residual yet: the next norm adds it. */
  let pending: string | undefined;
  for (const [index, layer] of weights.layers.entries()) {
    [residual, pending] = addLayer(b, p, storage, shared, index, layer, residual, pending);
  }
  const norm = addNorm(b, '/model/norm', p, residual, pending, weights.outputNorm, false);
  const kept = keepLast(b, norm.normed);
  addLogits(b, storage, weights, kept);
  return model;
}

function addInterface(b: GraphBuilder, p: LlamaParameters): void {
  const { graph } = b;
  const cache = [p.kvHeads, p.headDim] as const;
  const int64 = DataType.INT64;
  graph.inputs.push(
    makeValueInfo('input_ids', int64, ['batch_size', 'sequence_length']),
    makeValueInfo('attention_mask', int64, ['batch_size', 'total_sequence_length']),
  );
  graph.outputs.push(makeValueInfo('logits', DataType.FLOAT, ['batch_size', 'num_logits', p.vocabSize]));
  for (let i = 0; i < p.layers; i++) {
    for (const part of ['key', 'value']) {
      const shape = (length: string) => ['batch_size', cache[0], length, cache[1]];
      graph.inputs.push(
        makeValueInfo(`past_key_values.${i}.${part}`, b.floatDataType, shape('past_sequence_length')),
      );
      graph.outputs.push(
        makeValueInfo(`present.${i}.${part}`, b.floatDataType, shape('total_sequence_length')),
      );
    }
  }
  graph.inputs.push(makeValueInfo('num_logits_to_keep', int64, []));
}

/**
 * Batches of different lengths are right, padded left or right: every row's cache is taken as full
 * (`seqlens_k` is the same for all), padding is masked by an additive bias, and a token's rotary position is
 * its column. Only differences of positions matter to rotary attention, so padding before a text changes
 * nothing. `position_ids` would be no help: `GroupQueryAttention` reads only their first value in a prefill.
 */
function addShared(b: GraphBuilder, p: LlamaParameters, factors: Float32Array | undefined): Shared {
  const at = '/model/attn_mask_reformat';
  const maskShape = b.node(`${at}/Shape`, 'Shape', ['attention_mask']);
  const total = b.node(`${at}/Gather`, 'Gather', [maskShape, b.int64(1)], { axis: { int: 0 } });
  const totalLength = b.node(`${at}/Cast`, 'Cast', [total], { to: { int: DataType.INT32 } });
  // The last column that is attended, by sequence: a token goes where the mask says that it is, whichever side is padded.
  const columns = b.node(`${at}/Range`, 'Range', [b.int64(0), total, b.int64(1)]);
  const attended = b.node(`${at}/Mul`, 'Mul', ['attention_mask', columns]);
  const last = b.node(`${at}/ReduceMax`, 'ReduceMax', [attended, b.int64([1])], { keepdims: { int: 0 } });
  const sequenceLengths = b.node(`${at}/lengths/Cast`, 'Cast', [last], { to: { int: DataType.INT32 } });
  const idsShape = b.node(`${at}/ids/Shape`, 'Shape', ['input_ids']);
  const sequence = b.node(`${at}/sequence/Gather`, 'Gather', [idsShape, b.int64([1])], {
    axis: { int: 0 },
  });

  const masked = MASKED[b.floatType];
  const float = (name: string, value: number) =>
    b.weight(
      `/model/constants/${name}`,
      b.floatDataType,
      [],
      b.floatType === 'float32' ? Float32Array.of(value) : Uint16Array.of(floatToHalf(value)),
    );
  const visible = b.node(`${at}/bias/Cast`, 'Cast', ['attention_mask'], { to: { int: DataType.BOOL } });
  const bias = b.node(`${at}/bias/Where`, 'Where', [visible, float('visible', 0), float('masked', masked)]);
  const wide = b.node(`${at}/bias/Unsqueeze`, 'Unsqueeze', [bias, b.int64([1, 2])]);
  const shape = b.node(`${at}/bias/Concat`, 'Concat', [b.int64([1, 1]), sequence, b.int64([1])], {
    axis: { int: 0 },
  });
  const attentionBias = b.node(`${at}/bias/Expand`, 'Expand', [wide, shape]);

  const frequencies = rotaryFrequencies(p.rope, factors);
  const tableDims = [p.contextLength, frequencies.length];
  const table = (kind: 'cos' | 'sin') =>
    b.weight(
      `${kind}_cache`,
      b.floatDataType,
      tableDims,
      rotaryTable(kind, p.contextLength, frequencies, b.floatType),
    );
  return { sequenceLengths, totalLength, attentionBias, cos: table('cos'), sin: table('sin') };
}

/** One layer; what it leaves in the residual stream and what is still to be added to it. */
function addLayer(
  b: GraphBuilder,
  p: LlamaParameters,
  storage: Storage,
  shared: Shared,
  index: number,
  layer: LayerWeights,
  residual: string,
  pending: string | undefined,
): [residual: string, pending: string] {
  const at = `/model/layers.${index}`;
  const input = addNorm(b, `${at}/input_layernorm`, p, residual, pending, layer.attentionNorm, true);
  const qkv = addQueryKeyValue(b, storage, `${at}/attn`, input.normed, layer.qkv);
  const attention = `${at}/attn/GroupQueryAttention`;
  b.nodeWithOutputs(
    attention,
    'com.microsoft::GroupQueryAttention',
    [
      ...qkv,
      `past_key_values.${index}.key`,
      `past_key_values.${index}.value`,
      shared.sequenceLengths,
      shared.totalLength,
      shared.cos,
      shared.sin,
      '',
      shared.attentionBias,
    ],
    [`${attention}/output_0`, `present.${index}.key`, `present.${index}.value`],
    {
      num_heads: { int: p.heads },
      kv_num_heads: { int: p.kvHeads },
      scale: { float: 1 / Math.sqrt(p.headDim) },
      do_rotary: { int: 1 },
      rotary_interleaved: { int: 0 },
    },
  );
  const attended = storage.linear(b, `${at}/attn/o_proj`, `${attention}/output_0`, layer.attentionOutput);
  const middle = addNorm(
    b,
    `${at}/post_attention_layernorm`,
    p,
    input.residual,
    attended,
    layer.ffnNorm,
    true,
  );
  const [gate, up] = addGateUp(b, storage, `${at}/mlp`, middle.normed, layer.gateUp);
  const sigmoid = b.node(`${at}/mlp/act_fn/Sigmoid`, 'Sigmoid', [gate]);
  const activated = b.node(`${at}/mlp/act_fn/Mul`, 'Mul', [gate, sigmoid]);
  const inner = b.node(`${at}/mlp/Mul`, 'Mul', [activated, up]);
  return [middle.residual, storage.linear(b, `${at}/mlp/down_proj`, inner, layer.down)];
}

/** The first three inputs of the attention: one packed product, or three where the parts are stored differently. */
function addQueryKeyValue(
  b: GraphBuilder,
  storage: Storage,
  at: string,
  input: string,
  layer: LinearLayer,
): [string, string, string] {
  if (storage.packs(layer)) return [storage.linear(b, `${at}/qkv_proj`, input, layer), '', ''];
  const [q, k, v] = partsOf(layer);
  return [
    storage.linear(b, `${at}/q_proj`, input, q!),
    storage.linear(b, `${at}/k_proj`, input, k!),
    storage.linear(b, `${at}/v_proj`, input, v!),
  ];
}

/** Gate and up of the FFN: halves of one product, or two products where the parts are stored differently. */
function addGateUp(
  b: GraphBuilder,
  storage: Storage,
  at: string,
  input: string,
  layer: LinearLayer,
): [gate: string, up: string] {
  if (storage.packs(layer)) {
    const both = storage.linear(b, `${at}/gate_up_proj`, input, layer);
    const halves = [`${at}/gate_up_split/output_0`, `${at}/gate_up_split/output_1`] as [string, string];
    const half = layer.outputs / 2;
    b.nodeWithOutputs(`${at}/gate_up_split`, 'Split', [both, b.int64([half, half])], halves, {
      axis: { int: -1 },
    });
    return halves;
  }
  const [gate, up] = partsOf(layer);
  return [storage.linear(b, `${at}/gate_proj`, input, gate!), storage.linear(b, `${at}/up_proj`, input, up!)];
}

/** RMS norm, of a sum where something is still to be added to the residual; the sum is given on, too. */
function addNorm(
  b: GraphBuilder,
  name: string,
  p: LlamaParameters,
  residual: string,
  pending: string | undefined,
  gain: VectorRows,
  keepSum: boolean,
): { normed: string; residual: string } {
  const weight = b.weight(
    `${weightName(name)}.weight`,
    b.floatDataType,
    [p.hiddenSize],
    vectorData([gain], b.floatType),
  );
  const epsilon = { float: p.normEpsilon };
  const normed = `${name}/output_0`;
  if (pending === undefined) {
    const attributes = { axis: { int: -1 }, epsilon, stash_type: { int: 1 } };
    b.node(`${name}/LayerNorm`, 'SimplifiedLayerNormalization', [residual, weight], attributes, normed);
    return { normed, residual };
  }
  const sum = `${name}/output_3`;
  b.nodeWithOutputs(
    `${name}/SkipLayerNorm`,
    'com.microsoft::SkipSimplifiedLayerNormalization',
    [residual, pending, weight],
    keepSum ? [normed, '', '', sum] : [normed],
    { epsilon },
  );
  return { normed, residual: sum };
}

/** The last `num_logits_to_keep` positions: `x[:, -n:]`, which for n = 0 is all of them. */
function keepLast(b: GraphBuilder, hidden: string): string {
  const at = '/model/keep_last';
  const negative = b.node(`${at}/Neg`, 'Neg', ['num_logits_to_keep']);
  const start = b.node(`${at}/Reshape`, 'Reshape', [negative, b.int64([1])]);
  const end = b.int64([2 ** 31 - 1]);
  return b.node(`${at}/Slice`, 'Slice', [hidden, start, end, b.int64([1])]);
}

function addLogits(b: GraphBuilder, storage: Storage, weights: LlamaWeights, hidden: string): void {
  const raw =
    weights.output === undefined
      ? storage.tiedOutput(b, '/lm_head', hidden, weights.embedding)
      : storage.linear(b, '/lm_head', hidden, weights.output);
  if (b.floatType === 'float16') {
    b.node('/lm_head/Cast', 'Cast', [raw], { to: { int: DataType.FLOAT } }, 'logits');
    return;
  }
  const last = b.graph.nodes.at(-1)!;
  last.output[0] = 'logits';
}

import { ModelFormatError } from '@cqil/core';
import type { GgufModel } from './model-file.js';
import type { LlamaParameters } from './parameters.js';
import type { GgufTensor } from './reader.js';
import { isQuantType, type QuantType } from './types.js';

/** Rows of one matrix of the file, possibly in another order. */
export interface MatrixRows {
  readonly tensor: GgufTensor;
  readonly type: QuantType;
  readonly inputs: number;
  readonly outputs: number;
  /** For each row of the result the row in the file; the file's own order when absent. */
  readonly order?: Uint32Array;
}

/** `x · Wᵀ + b` with W `[outputs, inputs]`, W made of one or more matrices stacked along the outputs. */
export interface LinearLayer {
  readonly parts: readonly MatrixRows[];
  readonly inputs: number;
  readonly outputs: number;
  /** One vector a part, in the order of the file; absent where the model has no bias. */
  readonly biases?: readonly VectorRows[];
}

/** The matrices of a layer as layers of their own. */
export function partsOf({ parts, inputs, biases }: LinearLayer): LinearLayer[] {
  return parts.map((part, i) => ({
    parts: [part],
    inputs,
    outputs: part.outputs,
    ...(biases === undefined ? {} : { biases: [biases[i]!] }),
  }));
}

/** A vector of the file, possibly in another order. */
export interface VectorRows {
  readonly tensor: GgufTensor;
  readonly type: QuantType;
  readonly order?: Uint32Array;
}

export interface LayerWeights {
  readonly attentionNorm: VectorRows;
  readonly qkv: LinearLayer;
  readonly attentionOutput: LinearLayer;
  readonly ffnNorm: VectorRows;
  /** Gate and up, in this order: one input, two results of one size. */
  readonly gateUp: LinearLayer;
  readonly down: LinearLayer;
}

export interface LlamaWeights {
  /** `[vocabulary, hidden]` */
  readonly embedding: MatrixRows;
  readonly layers: readonly LayerWeights[];
  readonly outputNorm: VectorRows;
  /** Absent where the embedding serves as output matrix. */
  readonly output: LinearLayer | undefined;
  /** Divisors of the rotary frequencies, `[rotated / 2]` (Llama 3's long context). */
  readonly ropeFactors: VectorRows | undefined;
}

/**
 * Finds every tensor of a `llama` model, with the shape that the parameters ask for, and refuses what would be
 * left over: a tensor that is not used means a model that would be computed wrongly.
 *
 * @throws ModelFormatError `GGUF_TENSOR_MISSING`, `GGUF_TENSOR_DIMS`, `GGUF_UNSUPPORTED_TYPE`,
 * `GGUF_UNSUPPORTED_TENSOR`
 */
export function llamaWeights(model: GgufModel, p: LlamaParameters): LlamaWeights {
  const finder = new Finder(model);
  const { hiddenSize, ffnSize, heads, kvHeads, headDim } = p;
  const attention = heads * headDim;
  const kv = kvHeads * headDim;
  const queryOrder = halfSplitOrder(heads, headDim, p.rope.dimension);
  const keyOrder = halfSplitOrder(kvHeads, headDim, p.rope.dimension);
  const embedding = finder.matrix('token_embd.weight', hiddenSize, p.vocabSize);
  const layers = Array.from({ length: p.layers }, (_, i): LayerWeights => {
    const name = (part: string) => `blk.${i}.${part}`;
    return {
      attentionNorm: finder.vector(name('attn_norm.weight'), hiddenSize),
      qkv: finder.linear(
        [
          { name: name('attn_q'), outputs: attention, order: queryOrder },
          { name: name('attn_k'), outputs: kv, order: keyOrder },
          { name: name('attn_v'), outputs: kv },
        ],
        hiddenSize,
      ),
      attentionOutput: finder.linear([{ name: name('attn_output'), outputs: hiddenSize }], attention),
      ffnNorm: finder.vector(name('ffn_norm.weight'), hiddenSize),
      gateUp: finder.linear(
        [
          { name: name('ffn_gate'), outputs: ffnSize },
          { name: name('ffn_up'), outputs: ffnSize },
        ],
        hiddenSize,
      ),
      down: finder.linear([{ name: name('ffn_down'), outputs: hiddenSize }], ffnSize),
    };
  });
  const weights: LlamaWeights = {
    embedding,
    layers,
    outputNorm: finder.vector('output_norm.weight', hiddenSize),
    output: p.tiedEmbeddings
      ? undefined
      : finder.linear([{ name: 'output', outputs: p.vocabSize }], hiddenSize),
    ropeFactors: finder.optionalVector('rope_freqs.weight', p.rope.dimension / 2),
  };
  finder.refuseLeftovers();
  return weights;
}

/**
 * Rows of a q or k matrix from GGUF's order to the half-split order of `GroupQueryAttention`.
 *
 * GGUF's `llama` rotates neighbours (2i, 2i + 1); half-split rotary rotates (i, i + rotated/2). Since q and k
 * are reordered alike, their products stay what they were.
 */
export function halfSplitOrder(heads: number, headDim: number, rotated: number): Uint32Array {
  const order = new Uint32Array(heads * headDim);
  const half = rotated / 2;
  for (let head = 0; head < heads; head++) {
    const base = head * headDim;
    for (let i = 0; i < half; i++) {
      order[base + i] = base + 2 * i;
      order[base + half + i] = base + 2 * i + 1;
    }
    for (let i = rotated; i < headDim; i++) order[base + i] = base + i;
  }
  return order;
}

interface PartRequest {
  readonly name: string;
  readonly outputs: number;
  readonly order?: Uint32Array;
}

class Finder {
  readonly #tensors: ReadonlyMap<string, GgufTensor>;
  readonly #used = new Set<string>();

  constructor(model: GgufModel) {
    this.#tensors = model.tensors;
  }

  matrix(name: string, inputs: number, outputs: number, order?: Uint32Array): MatrixRows {
    const { tensor, type } = this.#take(name, [inputs, outputs]);
    return { tensor, type, inputs, outputs, ...(order === undefined ? {} : { order }) };
  }

  vector(name: string, length: number, order?: Uint32Array): VectorRows {
    return { ...this.#take(name, [length]), ...(order === undefined ? {} : { order }) };
  }

  optionalVector(name: string, length: number): VectorRows | undefined {
    return this.#tensors.has(name) ? this.vector(name, length) : undefined;
  }

  linear(requests: readonly PartRequest[], inputs: number): LinearLayer {
    const parts = requests.map(({ name, outputs, order }) =>
      this.matrix(`${name}.weight`, inputs, outputs, order),
    );
    const outputs = parts.reduce((sum, part) => sum + part.outputs, 0);
    const biased = requests.filter(({ name }) => this.#tensors.has(`${name}.bias`));
    if (biased.length === 0) return { parts, inputs, outputs };
    // A bias on q alone would be as wrong to drop as one on all three; `vector` reports the missing ones.
    const biases = requests.map((request) =>
      this.vector(`${request.name}.bias`, request.outputs, request.order),
    );
    return { parts, inputs, outputs, biases };
  }

  refuseLeftovers(): void {
    const left = [...this.#tensors.keys()].filter((name) => !this.#used.has(name));
    if (left.length === 0) return;
    throw new ModelFormatError('GGUF_UNSUPPORTED_TENSOR', 'The model has tensors of unknown meaning.', {
      expected: 'the tensors of a llama model',
      found: left.slice(0, 5).join(', ') + (left.length > 5 ? ` and ${left.length - 5} more` : ''),
      hint: 'Leaving them out would change what the model says; use the ONNX form of this model.',
    });
  }

  #take(name: string, dims: readonly number[]): { tensor: GgufTensor; type: QuantType } {
    const tensor = this.#tensors.get(name);
    if (tensor === undefined) {
      throw new ModelFormatError('GGUF_TENSOR_MISSING', `The model lacks the tensor "${name}".`, {
        expected: `a tensor of [${dims.join(', ')}]`,
        hint: 'The file is incomplete, or one part of a split model: fetch all parts.',
      });
    }
    const found = tensor.dims.filter((dim, i) => i < dims.length || dim !== 1);
    if (found.length !== dims.length || found.some((dim, i) => dim !== dims[i])) {
      throw new ModelFormatError('GGUF_TENSOR_DIMS', `The tensor "${name}" has another shape than needed.`, {
        expected: `[${dims.join(', ')}]`,
        found: `[${tensor.dims.join(', ')}]`,
        hint: 'The file is damaged or was made by a faulty converter.',
      });
    }
    if (!isQuantType(tensor.type)) {
      throw new ModelFormatError(
        'GGUF_UNSUPPORTED_TYPE',
        `The tensor "${name}" is stored as ${tensor.type}.`,
        {
          expected: 'F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K or Q6_K',
          found: tensor.type,
          hint: 'Fetch the model in one of these types.',
        },
      );
    }
    this.#used.add(name);
    return { tensor, type: tensor.type };
  }
}

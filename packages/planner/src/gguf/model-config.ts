import type { LlamaParameters } from './parameters.js';
import type { JsonObject } from './tokenizer/tokenizer-json.js';
import type { SpecialTokens } from './tokenizer/vocabulary.js';

/** A dtype by Transformers.js's name, which also decides about the file's name. */
export type TransformersDtype = 'fp32' | 'fp16' | 'q4' | 'q8';

/** Suffix of the model file, as Transformers.js looks for it. */
export const FILE_SUFFIX: Readonly<Record<TransformersDtype, string>> = {
  fp32: '',
  fp16: '_fp16',
  q4: '_q4',
  q8: '_quantized',
};

/** `config.json` under `cqil_import`, and the same in the graph's metadata: how the folder was made. */
export interface ImportRecord {
  /** Name of the (first) GGUF file. */
  readonly source: string;
  readonly name: string | null;
  /** How many tensors of each type the file has. */
  readonly source_types: Readonly<Record<string, number>>;
  readonly dtype: TransformersDtype;
  /** How the weights are stored, in words. */
  readonly weights: string;
}

/** The `config.json` of a Llama model, complete for Transformers.js and for Python's transformers. */
export function modelConfig(
  p: LlamaParameters,
  special: SpecialTokens,
  biases: { readonly attention: boolean; readonly ffn: boolean },
  record: ImportRecord,
  externalData: Readonly<Record<string, number>>,
): JsonObject {
  return {
    architectures: ['LlamaForCausalLM'],
    attention_bias: biases.attention,
    attention_dropout: 0,
    bos_token_id: special.bos ?? null,
    eos_token_id: endTokens(special),
    head_dim: p.headDim,
    hidden_act: 'silu',
    hidden_size: p.hiddenSize,
    initializer_range: 0.02,
    intermediate_size: p.ffnSize,
    max_position_embeddings: p.contextLength,
    mlp_bias: biases.ffn,
    model_type: 'llama',
    num_attention_heads: p.heads,
    num_hidden_layers: p.layers,
    num_key_value_heads: p.kvHeads,
    pad_token_id: special.padding ?? special.eos ?? null,
    ...(p.rope.dimension === p.headDim ? {} : { partial_rotary_factor: p.rope.dimension / p.headDim }),
    pretraining_tp: 1,
    rms_norm_eps: shortest(p.normEpsilon),
    rope_scaling:
      p.rope.positionDivisor === 1 ? null : { rope_type: 'linear', factor: shortest(p.rope.positionDivisor) },
    rope_theta: shortest(p.rope.base),
    tie_word_embeddings: p.tiedEmbeddings,
    torch_dtype: record.dtype === 'fp16' ? 'float16' : 'float32',
    'transformers.js_config': {
      dtype: record.dtype,
      ...(Object.keys(externalData).length === 0 ? {} : { use_external_data_format: externalData }),
    },
    use_cache: true,
    vocab_size: p.vocabSize,
    cqil_import: record,
  };
}

export function generationConfig(special: SpecialTokens): JsonObject {
  return {
    _from_model_config: true,
    ...(special.bos === undefined ? {} : { bos_token_id: special.bos }),
    ...(endTokens(special) === null ? {} : { eos_token_id: endTokens(special) }),
    ...((special.padding ?? special.eos) === undefined
      ? {}
      : { pad_token_id: special.padding ?? special.eos }),
  };
}

/** One id, or a list where a turn ends otherwise than the text. */
function endTokens({ eos, endOfTurn }: SpecialTokens): number | readonly number[] | null {
  const all = [...new Set([...(eos === undefined ? [] : [eos]), ...endOfTurn])];
  return all.length === 0 ? null : all.length === 1 ? all[0]! : all;
}

/** The shortest decimal number that is the same float32: 1e-5 for 9.999999747378752e-6. */
function shortest(value: number): number {
  for (let digits = 1; digits <= 9; digits++) {
    const candidate = Number(value.toPrecision(digits));
    if (Math.fround(candidate) === Math.fround(value)) return candidate;
  }
  return value;
}

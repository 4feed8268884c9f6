import { InferenceError } from '../errors.js';
import type { ValueInfo } from '../session/types.js';

/** A cache input: what earlier tokens left behind. */
export interface PastInput {
  readonly past: ValueInfo;
  /** What the name says after `past…`: `0.key`. */
  readonly entry: string;
  /** Where the sequence runs in the tensor; `undefined` for a state whose size does not grow. */
  readonly sequenceAxis: number | undefined;
  readonly batchAxis: number;
}

/** The inputs of a decoder graph by what they are for, read off their names. */
export interface DecoderInputs {
  readonly inputIds: ValueInfo;
  readonly attentionMask: ValueInfo | undefined;
  readonly positionIds: ValueInfo | undefined;
  /** `num_logits_to_keep`: how many positions' logits are computed, from the end; 0 for all. */
  readonly logitsToKeep: ValueInfo | undefined;
  readonly past: readonly PastInput[];
}

/** One entry of the cache: the input that takes it and the output that gives it grown by the new tokens. */
export interface CachePair extends PastInput {
  readonly present: string;
}

/** What a decoder graph wants and gives. */
export interface DecoderSignature extends DecoderInputs {
  readonly logits: string;
  readonly cache: readonly CachePair[];
}

/** `past_key_values.0.key`, `past_0`, `past.0.decoder.key`, `past_conv.0`, …: the rest names the entry. */
const PAST = /^past(?:_key_values|_key_value|_keys_values)?[._](.+)$/;
const PRESENT_PREFIXES = [
  'present.',
  'present_',
  'present_key_values.',
  'present_key_values_',
  'present_key_value.',
];

/**
 * @throws InferenceError `NOT_A_DECODER` when there are no token ids, or an input that this package cannot fill.
 */
export function decoderInputs(inputs: readonly ValueInfo[]): DecoderInputs {
  const single = new Map(inputs.map((input) => [input.name, input]));
  const take = (name: string) => {
    const input = single.get(name);
    single.delete(name);
    return input;
  };
  const inputIds = take('input_ids');
  if (inputIds === undefined) throw notADecoder('token ids "input_ids" as an input', list(inputs));
  const found: DecoderInputs = {
    inputIds,
    attentionMask: take('attention_mask'),
    positionIds: take('position_ids'),
    logitsToKeep: take('num_logits_to_keep'),
    past: inputs.flatMap((input) => {
      const entry = PAST.exec(input.name)?.[1];
      if (entry === undefined) return [];
      single.delete(input.name);
      return [pastInput(input, entry, inputIds)];
    }),
  };
  if (single.size > 0) {
    throw notADecoder(
      'only token ids, attention mask, position ids, num_logits_to_keep and a cache as inputs',
      `also ${[...single.keys()].join(', ')}`,
    );
  }
  return found;
}

/**
 * @throws InferenceError `NOT_A_DECODER` when token ids or logits are missing, when a cache input has no
 *   matching output, or when there is an input that this package cannot fill.
 */
export function decoderSignature(
  inputs: readonly ValueInfo[],
  outputs: readonly ValueInfo[],
): DecoderSignature {
  const known = decoderInputs(inputs);
  if (!outputs.some((output) => output.name === 'logits')) {
    throw notADecoder('"logits" as an output', list(outputs));
  }
  const names = new Set(outputs.map((output) => output.name));
  const cache = known.past.map((input) => {
    const present = PRESENT_PREFIXES.map((prefix) => prefix + input.entry).find((name) => names.has(name));
    if (present === undefined) {
      throw notADecoder(`an output for the cache input "${input.past.name}"`, `no "present.${input.entry}"`);
    }
    return { ...input, present };
  });
  return { ...known, logits: 'logits', cache };
}

function pastInput(past: ValueInfo, entry: string, inputIds: ValueInfo): PastInput {
  const free = past.shape.flatMap((dim, axis) => (typeof dim === 'string' ? [axis] : []));
  const batchAxis = free.find((axis) => past.shape[axis] === inputIds.shape[0]) ?? 0;
  const growing = free.filter((axis) => axis !== batchAxis);
  if (growing.length > 1) {
    throw notADecoder(
      `fixed sizes in "${past.name}" except for the batch and the sequence`,
      `[${past.shape.join(', ')}]`,
    );
  }
  return { past, entry, sequenceAxis: growing[0], batchAxis };
}

function list(values: readonly ValueInfo[]): string {
  const names = values.slice(0, 5).map((value) => value.name);
  return names.length === 0 ? 'none' : `${names.join(', ')}${values.length > 5 ? ', …' : ''}`;
}

function notADecoder(expected: string, found: string): InferenceError {
  return new InferenceError('NOT_A_DECODER', 'The model is no decoder that can generate text.', {
    expected,
    found,
    hint: 'Choose the decoder with cache of the model (`model.onnx`), exported for text generation.',
  });
}

import { InferenceError } from '../errors.js';
import type { ValueInfo } from '../session/types.js';

/** One entry of the cache: the input that takes it and the output that gives it grown by the new tokens. */
export interface CachePair {
  readonly past: ValueInfo;
  readonly present: string;
  /** Where the sequence runs in the tensor; `undefined` for a state whose size does not grow. */
  readonly sequenceAxis: number | undefined;
  readonly batchAxis: number;
}

/** What a decoder graph wants and gives, read off the names of its inputs and outputs. */
export interface DecoderSignature {
  readonly inputIds: ValueInfo;
  readonly attentionMask: ValueInfo | undefined;
  readonly positionIds: ValueInfo | undefined;
  /** `num_logits_to_keep`: how many positions' logits are computed, from the end; 0 for all. */
  readonly logitsToKeep: ValueInfo | undefined;
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
 * @throws InferenceError `NOT_A_DECODER` when token ids or logits are missing, when a cache input has no
 *   matching output, or when there is an input that this package cannot fill.
 */
export function decoderSignature(
  inputs: readonly ValueInfo[],
  outputs: readonly ValueInfo[],
): DecoderSignature {
  const inputIds = inputs.find((input) => input.name === 'input_ids');
  const logits = outputs.find((output) => output.name === 'logits');
  if (inputIds === undefined || logits === undefined) {
    throw notADecoder(
      'token ids "input_ids" as an input and "logits" as an output',
      `inputs ${inputs.slice(0, 5).map(nameOf).join(', ')}; outputs ${outputs.slice(0, 5).map(nameOf).join(', ')}`,
    );
  }
  const outputNames = new Set(outputs.map(nameOf));
  const cache: CachePair[] = [];
  const single = new Map<string, ValueInfo>();
  for (const input of inputs) {
    const entry = PAST.exec(input.name)?.[1];
    if (entry === undefined) single.set(input.name, input);
    else cache.push(cachePair(input, entry, outputNames, inputIds));
  }
  const take = (name: string) => {
    const input = single.get(name);
    single.delete(name);
    return input;
  };
  const signature: DecoderSignature = {
    inputIds: take('input_ids')!,
    attentionMask: take('attention_mask'),
    positionIds: take('position_ids'),
    logitsToKeep: take('num_logits_to_keep'),
    logits: logits.name,
    cache,
  };
  if (single.size > 0) {
    throw notADecoder(
      'only token ids, attention mask, position ids, num_logits_to_keep and a cache as inputs',
      `also ${[...single.keys()].join(', ')}`,
    );
  }
  return signature;
}

function cachePair(
  past: ValueInfo,
  entry: string,
  outputs: ReadonlySet<string>,
  inputIds: ValueInfo,
): CachePair {
  const present = PRESENT_PREFIXES.map((prefix) => prefix + entry).find((name) => outputs.has(name));
  if (present === undefined) {
    throw notADecoder(`an output for the cache input "${past.name}"`, `no "present.${entry}"`);
  }
  const free = past.shape.flatMap((dim, axis) => (typeof dim === 'string' ? [axis] : []));
  const batchName = inputIds.shape[0];
  const batchAxis = free.find((axis) => past.shape[axis] === batchName) ?? 0;
  const growing = free.filter((axis) => axis !== batchAxis);
  if (growing.length > 1) {
    throw notADecoder(
      `fixed sizes in "${past.name}" except for the batch and the sequence`,
      `[${past.shape.join(', ')}]`,
    );
  }
  return { past, present, sequenceAxis: growing[0], batchAxis };
}

function nameOf(value: ValueInfo): string {
  return value.name;
}

function notADecoder(expected: string, found: string): InferenceError {
  return new InferenceError('NOT_A_DECODER', 'The model is no decoder that can generate text.', {
    expected,
    found,
    hint: 'Choose the decoder with cache of the model (`model.onnx`), exported for text generation.',
  });
}

import { InferenceError } from '../errors.js';
import type { TensorValue } from '../tensor/types.js';
import type { ValueInfo } from './types.js';

/** Refuses feeds that ONNX Runtime would refuse, or would ignore silently. */
export function checkFeeds(inputs: readonly ValueInfo[], feeds: Readonly<Record<string, TensorValue>>): void {
  checkNames(inputs, feeds);
  for (const input of inputs) checkFeed(input, feeds[input.name]!);
}

/** @throws InferenceError `INPUT_MISSING`, `INPUT_UNKNOWN` */
export function checkNames(inputs: readonly ValueInfo[], feeds: Readonly<Record<string, unknown>>): void {
  const missing = inputs.filter((input) => feeds[input.name] === undefined).map((input) => input.name);
  if (missing.length > 0) {
    throw new InferenceError('INPUT_MISSING', 'Some inputs of the model were not given.', {
      expected: list(inputs.map((input) => input.name)),
      found: `no ${list(missing)}`,
    });
  }
  checkNoUnknown(inputs, feeds);
}

/** @throws InferenceError `INPUT_UNKNOWN` */
export function checkNoUnknown(inputs: readonly ValueInfo[], feeds: Readonly<Record<string, unknown>>): void {
  const known = new Set(inputs.map((input) => input.name));
  const unknown = Object.keys(feeds).filter((name) => !known.has(name));
  if (unknown.length > 0) {
    throw new InferenceError(
      'INPUT_UNKNOWN',
      'Some tensors were given for inputs that the model does not have.',
      {
        expected: list([...known]),
        found: list(unknown),
      },
    );
  }
}

/** @throws InferenceError `INPUT_TYPE`, `INPUT_SHAPE` */
export function checkFeed(input: ValueInfo, value: Pick<TensorValue, 'type' | 'dims'>): void {
  if (value.type !== input.elementType) {
    throw new InferenceError('INPUT_TYPE', `The tensor for "${input.name}" has the wrong type.`, {
      expected: input.elementType,
      found: value.type,
    });
  }
  const fits =
    input.shape.length === value.dims.length &&
    input.shape.every((dim, axis) => typeof dim === 'string' || dim === value.dims[axis]);
  // A value without a declared shape reports none; ONNX Runtime takes any shape for it.
  if (!fits && input.shape.length > 0) {
    throw new InferenceError('INPUT_SHAPE', `The tensor for "${input.name}" has the wrong shape.`, {
      expected: `[${input.shape.join(', ')}]`,
      found: `[${value.dims.join(', ')}]`,
    });
  }
}

export function checkFetches(outputs: readonly ValueInfo[], fetches: readonly string[]): void {
  const known = new Set(outputs.map((output) => output.name));
  const unknown = fetches.filter((name) => !known.has(name));
  if (unknown.length > 0) {
    throw new InferenceError('OUTPUT_UNKNOWN', 'Some outputs that were asked for do not exist.', {
      expected: list([...known]),
      found: list(unknown),
    });
  }
}

/** Names for a message; long lists are cut, since a decoder has two cache inputs a layer. */
function list(names: readonly string[]): string {
  const shown = names.slice(0, 8).join(', ');
  return names.length > 8 ? `${shown} and ${names.length - 8} more` : shown;
}

import { InferenceError, type ValueInfo } from '@cqil/runtime-gpu';
import type { Feeds } from './ort.js';

/** ONNX Runtime's names for element types, in its messages. */
const TYPE_NAMES: Readonly<Record<string, string>> = { float32: 'float', float64: 'double' };

/**
 * What went wrong in a run, in ONNX Runtime's own words: programs know those, and look for them.
 *
 * @param error what the native session threw
 */
export function asOrtError(error: unknown, inputs: readonly ValueInfo[], feeds: Feeds): unknown {
  if (!(error instanceof InferenceError)) return error;
  const said = sayAsOrt(error, inputs, feeds);
  return said === undefined ? error : new Error(said, { cause: error });
}

function sayAsOrt(error: InferenceError, inputs: readonly ValueInfo[], feeds: Feeds): string | undefined {
  switch (error.code) {
    case 'OUT_OF_MEMORY':
    case 'RUN_FAILED':
      return error.cause instanceof Error ? error.cause.message : error.found;
    case 'SESSION_DISPOSED':
      return 'Session already disposed.';
    case 'INPUT_TYPE':
    case 'INPUT_SHAPE':
      return inputs.map((input) => misfit(input, feeds[input.name]!)).find((said) => said !== undefined);
    default:
      return undefined;
  }
}

/** What is wrong with a tensor for an input. */
function misfit(input: ValueInfo, { type, dims }: Feeds[string]): string | undefined {
  if (type !== input.elementType) {
    return `Unexpected input data type. Actual: (${typeName(type)}) , expected: (${typeName(input.elementType)})`;
  }
  const advice = 'Please fix either the inputs/outputs or the model.';
  const { name, shape } = input;
  if (shape.length > 0 && shape.length !== dims.length) {
    return `Invalid rank for input: ${name} Got: ${dims.length} Expected: ${shape.length} ${advice}`;
  }
  const wrong = shape.flatMap((dim, axis) =>
    typeof dim === 'number' && dim !== dims[axis]
      ? [` index: ${axis} Got: ${dims[axis]} Expected: ${dim}\n`]
      : [],
  );
  if (wrong.length === 0) return undefined;
  return `Got invalid dimensions for input: ${name} for the following indices\n${wrong.join('')} ${advice}`;
}

function typeName(type: string): string {
  return `tensor(${TYPE_NAMES[type] ?? type})`;
}

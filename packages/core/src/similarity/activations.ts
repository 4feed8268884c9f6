import { MetricError } from '../errors.js';
import { isKept, type TokenMask } from './mask.js';

/**
 * Checks a batch of activations and returns its number of tokens.
 *
 * @param names what each array is, for messages: `point 3`.
 * @throws MetricError `ACTIVATION_SHAPE`, `ACTIVATION_NOT_FINITE`; nothing has been consumed then.
 */
export function checkActivations(
  activations: readonly Float32Array[],
  names: (index: number) => string,
  hidden: number,
  mask: TokenMask | undefined,
): number {
  const length = activations[0]?.length ?? 0;
  for (const [index, values] of activations.entries()) {
    if (!(values instanceof Float32Array)) {
      throw new MetricError(
        'ACTIVATION_SHAPE',
        `The activations of ${names(index)} are not a Float32Array.`,
        {
          expected: 'one Float32Array [tokens, hidden], row-major',
          hint: 'Convert float16 or float64 activations to Float32Array first.',
        },
      );
    }
    if (values.length !== length || values.length % hidden !== 0) {
      throw new MetricError('ACTIVATION_SHAPE', `The activations of ${names(index)} have a wrong size.`, {
        expected:
          values.length % hidden === 0
            ? `${length} values, as at ${names(0)}: the same tokens everywhere`
            : `a multiple of the hidden size, ${hidden}`,
        found: `${values.length} values`,
      });
    }
  }
  const tokens = length / hidden;
  if (mask !== undefined && mask.length !== tokens) {
    throw new MetricError('ACTIVATION_SHAPE', 'The token mask does not fit the activations.', {
      expected: `${tokens} flags, one a token`,
      found: `${mask.length}`,
    });
  }
  for (const [index, values] of activations.entries()) {
    for (let token = 0; token < tokens; token++) {
      if (!isKept(mask, token)) continue;
      const start = token * hidden;
      // 0 * x is 0 for every finite x and NaN otherwise: one multiplication tells, without a branch per value.
      let zero = 0;
      for (let c = 0; c < hidden; c++) zero += 0 * values[start + c]!;
      if (zero === 0) continue;
      const channel = values.subarray(start, start + hidden).findIndex((value) => !Number.isFinite(value));
      throw new MetricError(
        'ACTIVATION_NOT_FINITE',
        `The activations of ${names(index)} hold ${values[start + channel]} at token ${token}, channel ${channel}.`,
        {
          expected: 'finite numbers',
          found: String(values[start + channel]),
          hint: 'The model overflowed: run it in fp32, or mask this token.',
        },
      );
    }
  }
  return tokens;
}

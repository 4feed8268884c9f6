import { InferenceError } from '../errors.js';
import type { TensorValue } from '../tensor/types.js';

export interface Logits {
  readonly dims: readonly [batch: number, positions: number, vocabulary: number];
  /** `[batch, positions, vocabulary]`, row-major. */
  readonly data: Float32Array;
}

/** @throws InferenceError `NOT_A_DECODER` for a tensor that has not three dimensions */
export function logitsShape(tensor: TensorValue): Logits['dims'] {
  if (tensor.dims.length === 3) return tensor.dims as unknown as Logits['dims'];
  throw new InferenceError('NOT_A_DECODER', 'The logits have an unexpected shape.', {
    expected: '[batch, positions, vocabulary]',
    found: `[${tensor.dims.join(', ')}]`,
  });
}

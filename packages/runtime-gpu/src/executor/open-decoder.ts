import { DecoderSession } from '../decoder/decoder.js';
import { InferenceError } from '../errors.js';
import type { SessionOptions } from '../session/types.js';
import { isPartition, openPartitioned } from './open.js';

/**
 * Opens what lies at a place as a decoder: an `.onnx` file in one session, a folder that `cqil partition` wrote on its
 * devices.
 *
 * A partition's devices say how many threads there are, so `threads` is not heeded for one.
 *
 * @throws InferenceError what `DecoderSession.open` and `openPartitioned` throw; `PARTITION_OPTIONS`
 * @example
 * ```ts
 * const decoder = await openDecoder('models/smollm2-two');
 * ```
 */
export async function openDecoder(place: string, options: SessionOptions = {}): Promise<DecoderSession> {
  if (!(await isPartition(place))) return DecoderSession.open(place, options);
  const { providers = ['cpu'], binding = 'native', graphOptimization, config, log } = options;
  if (providers[0] !== 'cpu' || binding !== 'native') {
    throw new InferenceError('PARTITION_OPTIONS', `The partition in ${place} cannot be run like this.`, {
      expected: "the provider 'cpu' and the native binding",
      found: `${providers.join(', ') || 'no provider'}, ${binding}`,
      hint: 'Leave these options out, or open the model that the partition was cut from.',
    });
  }
  const session = {
    ...(graphOptimization === undefined ? {} : { graphOptimization }),
    ...(config === undefined ? {} : { config }),
    ...(log === undefined ? {} : { log }),
  };
  return (await openPartitioned(place, { session })).decoder;
}

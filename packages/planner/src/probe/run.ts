import { AnatomyError } from '@cqil/core';
import { decoderFeeds, decoderInputs, type Session, type TensorValue } from '@cqil/runtime-gpu';

/**
 * Runs a decoder graph, or a part of one, on one sequence from an empty cache.
 *
 * @param cut values for inputs that decoders do not have: where the graph was cut
 */
export async function runSequence(
  session: Session,
  ids: readonly number[],
  fetches: readonly string[],
  cut: Readonly<Record<string, TensorValue>> = {},
): Promise<Record<string, TensorValue>> {
  // A part of a graph that reads no token ids still needs their shape to be filled: masks and positions.
  const ofDecoder = session.inputs.filter((input) => cut[input.name] === undefined);
  const reads = ofDecoder.some((input) => input.name === 'input_ids');
  const known = reads
    ? ofDecoder
    : [{ name: 'input_ids', elementType: 'int64' as const, shape: ['batch', 'seq'] }, ...ofDecoder];
  const feeds = {
    ...decoderFeeds(decoderInputs(known), { ids: [ids], mask: [ids.map(() => 1)] }),
    ...cut,
  };
  if (!reads) delete (feeds as Record<string, TensorValue>).input_ids;
  return session.run(feeds, fetches);
}

/** Width of the residual stream, from a state of it `[batch, seq, hidden]`. */
export function hiddenSize(state: TensorValue): number {
  const hidden = state.dims.at(-1);
  if (state.dims.length === 3 && hidden !== undefined && hidden > 0) return hidden;
  throw new AnatomyError('PROBE_STREAM_SHAPE', 'The residual stream has an unexpected shape.', {
    expected: '[batch, seq, hidden]',
    found: `[${state.dims.join(', ')}]`,
  });
}
